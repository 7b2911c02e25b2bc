//! Expansion of words.

use indexmap::IndexMap;
use kiln_dockerfile::expand::{ExpandErrorKind, Expander, NoVariables};

fn variables() -> IndexMap<String, String> {
    [
        ("home", "/home"),
        ("shell", "bash"),
        ("empty", ""),
        ("한국어", "korean"),
        ("file", "app.tar.gz"),
        ("star", "a*b*c"),
        ("path", "/usr/local/bin"),
        ("slash", "/local"),
        ("blanks", " a  b "),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into()
}

fn word(text: &str) -> Option<String> {
    Expander::new('\\').word(text, &variables()).ok()
}

#[test]
fn quotes_and_escapes() {
    let cases: &[(&str, Option<&str>)] = &[
        ("plain", Some("plain")),
        ("a'b'c", Some("abc")),
        ("a\"b\"c", Some("abc")),
        ("a'b", None),
        ("\"a", None),
        ("\"a\\\"", None),
        ("a\\'b", Some("a'b")),
        ("a\\\\'b", None),
        ("a\\tb", Some("atb")),
        ("\"a\\tb\"", Some("a\\tb")),
        ("\"a\\\\tb\"", Some("a\\tb")),
        ("'a\\tb'", Some("a\\tb")),
        ("'a\\'", Some("a\\")),
        ("a\\", Some("a")),
        ("a\\\\", Some("a\\")),
        ("\"'\"", Some("'")),
        ("'\"'", Some("\"")),
        ("'$home'", Some("$home")),
        ("\"$home\"", Some("/home")),
        ("\"'$home'\"", Some("'/home'")),
        ("\\$home", Some("$home")),
        ("\\\\$home", Some("\\/home")),
        ("\"\\$home\"", Some("$home")),
        ("안'녕'하", Some("안녕하")),
        ("", Some("")),
    ];
    for (text, expected) in cases {
        assert_eq!(word(text).as_deref(), *expected, "{text}");
    }
}

#[test]
fn references() {
    let cases: &[(&str, Option<&str>)] = &[
        ("$home", Some("/home")),
        ("${home}x", Some("/homex")),
        ("$homex", Some("")),
        ("$한국어", Some("korean")),
        ("$1x", Some("x")),
        ("$001x", Some("x")),
        ("${1}x", Some("x")),
        ("$.", Some("$.")),
        ("$", Some("$")),
        ("$$x", Some("x")),
        ("$@x$*$#$?$-$!$0", Some("x")),
        ("${$}", Some("")),
        ("${}", None),
        ("${", None),
        ("${home", None),
        ("${{home}", None),
        ("${:}", None),
        ("${.}", None),
        ("${home}}", Some("/home}")),
        ("\\${}", Some("${}")),
    ];
    for (text, expected) in cases {
        assert_eq!(word(text).as_deref(), *expected, "{text}");
    }
}

#[test]
fn defaults_alternatives_and_requirements() {
    let cases: &[(&str, Option<&str>)] = &[
        ("${home:-x}", Some("/home")),
        ("${none:-x}", Some("x")),
        ("${empty:-x}", Some("x")),
        ("${empty-x}", Some("")),
        ("${none-x}", Some("x")),
        ("${none:-}", Some("")),
        ("${none:-$home}", Some("/home")),
        ("${none:-${nil:-${shell}}}z", Some("bashz")),
        ("${none:-\\$home:}", Some("$home:")),
        ("${none:-\\}}", Some("}")),
        ("${none:-'}'}", Some("}")),
        ("${none:-a b}", Some("a b")),
        ("${none:-{a}", Some("{a")),
        ("${home:+x}", Some("x")),
        ("${empty:+x}", Some("")),
        ("${empty+x}", Some("x")),
        ("${none+x}", Some("")),
        ("${home:+${shell}:}", Some("bash:")),
        ("${home?}", Some("/home")),
        ("${home:?x}", Some("/home")),
        ("${empty?x}", Some("")),
        ("${empty:?x}", None),
        ("${none?x}", None),
        ("${home:=x}", None),
        ("${home=x}", None),
        ("${home:x}", None),
        ("${home:", None),
        ("${none:-${nil}", None),
    ];
    for (text, expected) in cases {
        assert_eq!(word(text).as_deref(), *expected, "{text}");
    }
}

#[test]
fn patterns() {
    let cases: &[(&str, Option<&str>)] = &[
        ("${file#*.}", Some("tar.gz")),
        ("${file##*.}", Some("gz")),
        ("${file%.*}", Some("app.tar")),
        ("${file%%.*}", Some("app")),
        ("${file#???}", Some(".tar.gz")),
        ("${file#x}", Some("app.tar.gz")),
        ("${file#}", Some("app.tar.gz")),
        ("${star#a\\*}", Some("b*c")),
        ("${none#x}", Some("")),
        ("${file:#x}", None),
        ("${file#\\x}", None),
        ("${path#$slash}", Some("/usr/local/bin")),
        ("${path/$slash/}", Some("/usr/bin")),
        ("${path//\\//:}", Some(":usr:local:bin")),
        ("${path/\\//:}", Some(":usr/local/bin")),
        ("${path//l/$shell}", Some("/usr/bashocabash/bin")),
        ("${path/nothing/x}", Some("/usr/local/bin")),
        ("${path///}", Some("/usr/local/bin")),
        ("${path//x}", None),
        ("${path/x", None),
        ("${none/a/b}", Some("")),
    ];
    for (text, expected) in cases {
        assert_eq!(word(text).as_deref(), *expected, "{text}");
    }
}

#[test]
fn words_are_split_after_expansion() {
    let cases: &[(&str, &[&str])] = &[
        ("a b", &["a", "b"]),
        ("  a \t b ", &["a", "b"]),
        ("a\\ b", &["a b"]),
        ("\"a  b\" c", &["a  b", "c"]),
        ("x${blanks}y", &["x", "a", "b", "y"]),
        ("x\"${blanks}\"y", &["x a  b y"]),
        ("80 ${none:-81}-82", &["80", "81-82"]),
        ("$none", &[]),
        ("", &[]),
    ];
    for (text, expected) in cases {
        let words = Expander::new('\\').words(text, &variables()).unwrap();
        assert_eq!(words, *expected, "{text}");
    }
}

#[test]
fn every_variable_looked_at_is_reported() {
    let text = "$home ${none:-$shell} '$nil' ${empty:+$other} ${file#$nil}";
    let found = Expander::new('\\').expand(text, &variables()).unwrap();
    assert_eq!(found.used.iter().collect::<Vec<_>>(), ["home", "shell", "empty", "file"]);
    assert_eq!(found.unset.iter().collect::<Vec<_>>(), ["none", "other", "nil"]);
}

#[test]
fn display_names_keep_quotes_and_unset_variables() {
    let expander = Expander::new('\\').keep_quotes().keep_unset();
    let text = "RUN echo \"$home\" '$home' $none ${none} ${none:-$shell} ${none%x} ${none//a/b}";
    let expected = "RUN echo \"/home\" '$home' $none ${none} ${none:-bash} ${none%x} ${none//a/b}";
    assert_eq!(expander.word(text, &variables()).unwrap(), expected);
}

#[test]
fn heredoc_bodies_have_no_quotes() {
    let expander = Expander::new('\\').ignore_quotes();
    let found = expander.word("it's \"$home\" \\$home\n", &variables()).unwrap();
    assert_eq!(found, "it's \"/home\" $home\n");
}

#[test]
fn the_escape_character_can_be_a_backtick() {
    let found = Expander::new('`').word("c:\\x `$home \"`\"\"", &variables()).unwrap();
    assert_eq!(found, "c:\\x $home \"");
}

#[test]
fn messages_name_the_word_and_the_mistake() {
    let message =
        |text: &str| Expander::new('\\').word(text, &variables()).unwrap_err().to_string();
    insta::assert_snapshot!(
        ["'a", "\"a", "${a", "${}", "${a=b}", "${home/x}", "${a?}", "${empty:?}", "${a:?set a}",
         "${home#\\x}"]
            .map(message)
            .join("\n"),
        @r#"
    failed to process "'a": unexpected end of statement while looking for matching single-quote
    failed to process "\"a": unexpected end of statement while looking for matching double-quote
    failed to process "${a": syntax error: missing '}'
    failed to process "${}": syntax error: bad substitution
    failed to process "${a=b}": unsupported modifier (=) in substitution
    failed to process "${home/x}": syntax error: missing '/' in ${}
    failed to process "${a?}": a: is not allowed to be unset
    failed to process "${empty:?}": empty: is not allowed to be empty
    failed to process "${a:?set a}": a: set a
    failed to process "${home#\\x}": invalid pattern (\x) in substitution: invalid escape '\x'
    "#
    );
}

#[test]
fn nothing_grows_without_bound() {
    let kind = |text: &str, value: &str| {
        let variables = IndexMap::from([("v".to_owned(), value.to_owned())]);
        Expander::new('\\').expand(text, &variables).unwrap_err().kind
    };
    let deep = format!("{}{}", "${a:-".repeat(10_000), "}".repeat(10_000));
    assert!(matches!(kind(&deep, ""), ExpandErrorKind::TooDeep { .. }));
    let megabyte = "x".repeat(1 << 20);
    assert!(matches!(kind("$v$v", &megabyte), ExpandErrorKind::TooLong { .. }));
    assert!(matches!(kind("\"$v$v\"", &megabyte), ExpandErrorKind::TooLong { .. }));
    assert!(matches!(kind("${v//x/$v}", &megabyte), ExpandErrorKind::TooLong { .. }));
    let patterns = "${v##*}".repeat(1000);
    assert!(matches!(kind(&patterns, &megabyte), ExpandErrorKind::TooMuchMatching));
    let long = "$".repeat(1 << 20) + "a";
    assert!(Expander::new('\\').expand(&long, &NoVariables).is_ok());
}
