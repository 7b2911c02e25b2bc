//! What is said about each mistake, and where it is said to be.

use std::fmt::Write as _;

use kiln_dockerfile::{Dockerfile, excerpt};

/// The messages for single instructions of a stage, one a line.
fn messages(instructions: &[&str]) -> String {
    let mut out = String::new();
    for text in instructions {
        let source = format!("FROM scratch\n{text}");
        let error = match Dockerfile::parse(source.as_bytes()) {
            Ok(file) => panic!("{text}: {file:?}"),
            Err(error) => error,
        };
        let _ = writeln!(out, "{text:?}\n    {error}");
    }
    out
}

#[test]
fn instructions() {
    insta::assert_snapshot!(messages(&[
        "RNU true",
        "frmo x",
        "<<EOF",
        "RUN <<EOF\necho",
        "CMD [\"a\", 1]",
        "COPY [\"a\", null, \"b\"]",
        "ENV",
        "ENV a",
        "ENV a=b c",
        "ENV =b",
        "LABEL",
        "LABEL =x",
        "ARG",
        "ARG =x",
        "MAINTAINER",
        "USER",
        "WORKDIR",
        "STOPSIGNAL",
        "EXPOSE",
        "VOLUME",
        "VOLUME [\" \"]",
        "SHELL",
        "SHELL []",
        "SHELL bash -c",
        "ONBUILD",
        "ONBUILD ONBUILD RUN a",
        "ONBUILD FROM a",
        "ONBUILD maintainer a",
        "ONBUILD RNU a",
        "FROM",
        "FROM a b",
        "FROM a TO b",
        "FROM a AS 1",
        "FROM a AS b/c",
    ]));
}

#[test]
fn flags() {
    insta::assert_snapshot!(messages(&[
        "COPY --form=a b c",
        "COPY --unpack a b",
        "COPY --link --link a b",
        "COPY --link=maybe a b",
        "COPY --from a b",
        "ADD --kep-git-dir a b",
        "RUN --mont=type=cache a",
        "RUN --network=lan a",
        "RUN --security=none a",
        "RUN --device=a,b c",
        "RUN --mount=from=$x,target=/a b",
        "RUN --mount=a\\\"b a",
        "ENV --a b=c",
        "ARG --a b",
        "ONBUILD --a RUN b",
        "FROM --platfrom=a b",
        "HEALTHCHECK --intervall=1s CMD a",
    ]));
}

#[test]
fn copies() {
    insta::assert_snapshot!(messages(&[
        "COPY",
        "COPY a",
        "ADD --link a",
        "COPY [\"a\"]",
        "COPY a <<b\nb",
    ]));
}

#[test]
fn health_checks() {
    insta::assert_snapshot!(messages(&[
        "HEALTHCHECK",
        "HEALTHCHECK NONE a",
        "HEALTHCHECK CMD",
        "HEALTHCHECK CMD []",
        "HEALTHCHECK TCP a",
        "HEALTHCHECK --interval=5 CMD a",
        "HEALTHCHECK --timeout=1us CMD a",
        "HEALTHCHECK --retries=-1 CMD a",
        "HEALTHCHECK --retries=many CMD a",
    ]));
}

#[test]
fn files() {
    let sources: [&[u8]; 9] = [
        b"",
        b"# nothing\n\n",
        b"ARG a\n",
        b"RUN a\nFROM b\n",
        b"# escape=x\nFROM a\n",
        b"# syntax=a\n# syntax=b\nFROM a\n",
        b"FROM a\nRUN \xff\n",
        b"FROM a\nCOPY <<b /\n\xff\nb\n",
        b"FROM a\nRUN b \\\n \xff\n",
    ];
    let mut out = String::new();
    for source in sources {
        let error = Dockerfile::parse(source).unwrap_err();
        let _ = writeln!(out, "{:?}\n    {error}", String::from_utf8_lossy(source));
    }
    insta::assert_snapshot!(out);
}

#[test]
fn an_error_comes_with_help_and_its_lines() {
    let source = "FROM alpine\nWORKDIR /app\nCOPY --form=build \\\n  /a \\\n  /b\nRUN true\n";
    let error = Dockerfile::parse(source.as_bytes()).unwrap_err();
    assert_eq!(error.message(), "unknown flag: --form");
    assert_eq!(error.help().as_deref(), Some("did you mean from?"));
    let lines: Vec<&str> = source.split('\n').collect();
    insta::assert_snapshot!(excerpt("Dockerfile", &lines, error.locations()));
}

#[test]
fn what_comes_before_a_mistake_can_still_be_checked() {
    let (file, error) = Dockerfile::parse_up_to_error(b"FROM a AS b\nRUN c\nRNU d\nRUN e\n");
    assert_eq!(error.unwrap().location().unwrap().start, 3);
    assert_eq!(file.stages[0].instructions.len(), 1);
}
