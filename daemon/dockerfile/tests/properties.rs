//! What holds for any input.

use std::time::{Duration, Instant};

use indexmap::IndexMap;
use kiln_dockerfile::expand::{Expander, NoVariables};
use kiln_dockerfile::instruction::{Command, parse_mount, parse_port, parse_trigger};
use kiln_dockerfile::lint::{LintOptions, Linter, check_source, check_whole};
use kiln_dockerfile::plan::{GlobalArgs, Plan};
use kiln_dockerfile::{Dockerfile, Location, detect_syntax, excerpt};
use proptest::prelude::*;

/// Takes a file as far as it goes without a build.
fn exercise(source: &[u8]) {
    let _ = detect_syntax(source);
    let text = String::from_utf8_lossy(source);
    let file = match Dockerfile::parse(source) {
        Ok(file) => file,
        Err(error) => {
            let _ = excerpt("Dockerfile", &text.split('\n').collect::<Vec<_>>(), error.locations());
            let _ = error.to_string();
            return;
        }
    };
    let mut linter = Linter::default();
    check_source(&file, &mut linter);
    check_whole(&file, &mut linter);
    let lines = text.split('\n').count();
    for stage in &file.stages {
        for instruction in &stage.instructions {
            assert!(instruction.location.start >= 1);
            assert!(instruction.location.end as usize <= lines);
            if let Command::Onbuild(trigger) = &instruction.command {
                let _ = parse_trigger(trigger, stage.location);
            }
        }
    }
    if let Ok(globals) = GlobalArgs::evaluate(&file, IndexMap::new(), &NoVariables)
        && let Ok(plan) = Plan::new(&file, &globals, |_| false, &mut linter)
        && let Ok(target) = plan.target(None)
    {
        let _ = plan.reachable([target]);
    }
}

/// Text that looks enough like a Dockerfile to get past the first line.
fn dockerfile() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        prop::sample::select(vec![
            "FROM ",
            "RUN ",
            "COPY ",
            "ADD ",
            "ENV ",
            "ARG ",
            "ONBUILD ",
            "CMD ",
            "HEALTHCHECK ",
            "EXPOSE ",
            "VOLUME ",
            "SHELL ",
            "LABEL ",
            "AS ",
            "a",
            "b",
            "scratch",
            "--from=",
            "--mount=",
            "--link",
            "--",
            "type=cache",
            "target=",
            "<<EOF",
            "<<-'x'",
            "EOF",
            "x",
            "\n",
            "\n",
            "\n",
            "\r\n",
            "\\\n",
            "\\",
            "`",
            "# escape=`\n",
            "# syntax=",
            "#",
            "\"",
            "'",
            "$",
            "${",
            "}",
            ":-",
            "%",
            "//",
            "[",
            "]",
            ",",
            "=",
            " ",
            "\t",
            "\u{feff}",
            "é",
            "NONE",
            "80-90/tcp",
            "0",
        ])
        .prop_map(str::to_owned),
        ".{0,4}",
    ];
    prop::collection::vec(piece, 0..60).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn no_bytes_make_the_parser_panic(source in prop::collection::vec(any::<u8>(), 0..400)) {
        exercise(&source);
    }

    #[test]
    fn no_dockerfile_makes_the_parser_panic(source in dockerfile()) {
        exercise(source.as_bytes());
        exercise(format!("FROM a\n{source}").as_bytes());
    }

    #[test]
    fn no_word_makes_expansion_panic(word in "[a${}:+?#%/'\"\\\\ <*-]{0,40}") {
        let variables = IndexMap::from([("a".to_owned(), "a/b:c é*".to_owned())]);
        let expander = Expander::new('\\');
        for expander in [
            expander.clone(),
            expander.clone().keep_quotes().keep_escapes(),
            expander.clone().ignore_quotes(),
            expander.keep_unset(),
        ] {
            let _ = expander.expand(&word, &variables);
        }
    }

    #[test]
    fn words_joined_are_the_text_without_blanks(word in "[ab$\\\\ ]{0,40}") {
        let variables = IndexMap::from([("a".to_owned(), " x y ".to_owned())]);
        let found = Expander::new('\\').expand(&word, &variables).unwrap();
        let joined: String = found.words.concat();
        let strip = |text: &str| text.replace(' ', "");
        prop_assert_eq!(strip(&joined), strip(&found.text));
    }

    #[test]
    fn no_option_makes_its_parser_panic(text in ".{0,60}", number in any::<u32>()) {
        let _ = parse_mount(&text);
        let _ = parse_port(&text);
        let _ = LintOptions::parse(&text);
        let _ = parse_trigger(&text, Location::line(1));
        let _ = excerpt("f", &text.split('\n').collect::<Vec<_>>(), &[Location::new(number, number.wrapping_mul(7))]);
    }

    #[test]
    fn parsing_again_what_was_parsed_gives_the_same(source in dockerfile()) {
        let source = format!("FROM a\n{source}");
        if let Ok(file) = Dockerfile::parse(source.as_bytes())
            && file.directives.escape == '\\'
        {
            for instruction in file.stages.iter().flat_map(|stage| &stage.instructions) {
                let has_heredocs = instruction.location.start != instruction.location.end;
                let opens_brackets = instruction.source.ends_with('\\');
                if !has_heredocs && !opens_brackets && !instruction.source.contains('\n') {
                    let again = Dockerfile::parse(
                        format!("FROM a\n{}\n", instruction.source).as_bytes()
                    ).unwrap();
                    let again = &again.stages[0].instructions[0].command;
                    if !matches!(again, Command::Arg(_)) {
                        prop_assert_eq!(again, &instruction.command);
                    }
                }
            }
        }
    }
}

#[test]
fn a_line_of_a_mebibyte_takes_no_time() {
    const SIZE: usize = 1 << 20;
    let pieces = [
        "a", "\"", "'", "\\", "$", "${a:-", "<<", "<<a ", "--a ", "a=b ", "[", "[\"a\",", ",", "#",
        "=", "a\\\n", "\\\n\n", "<<a\n", "\n", "ONBUILD ", "\u{e9}", "\u{a0}", "{", "-", "/",
    ];
    for keyword in [
        "",
        "FROM ",
        "RUN ",
        "ENV a=",
        "COPY ",
        "ARG ",
        "ONBUILD RUN ",
        "HEALTHCHECK ",
        "LABEL ",
        "EXPOSE ",
        "CMD ",
        "VOLUME ",
        "RUN --mount=",
        "# ",
    ] {
        for piece in pieces {
            let source = format!("FROM a\n{keyword}{}", piece.repeat(SIZE / piece.len()));
            let start = Instant::now();
            exercise(source.as_bytes());
            let took = start.elapsed();
            assert!(took < Duration::from_secs(5), "{keyword:?} {piece:?} took {took:?}");
        }
    }
}
