use super::*;
use proptest::prelude::*;

fn matcher(patterns: &[&str]) -> Matcher {
    Matcher::new(patterns).unwrap()
}

#[test]
fn one_pattern_matches_paths_and_what_is_below_them() {
    for (pattern, path, expected) in [
        ("file", "file", true),
        ("file", "dir/file", false),
        ("dir", "dir/a/b", true),
        ("dir/", "dir/file", true),
        ("./dir/../other", "other", true),
        ("*", "dir/file", true),
        ("*.go", "main.go", true),
        ("*.go", "sub/main.go", false),
        ("a?c", "abc", true),
        ("a?c", "a/c", false),
        ("?", "é", true),
        ("??", "é", false),
        ("*?", "é", true),
        ("*??", "é", false),
        ("a[b-d]e", "ace", true),
        ("a[^b-d]e", "aze", true),
        ("a[^b-d]e", "a/e", true),
        ("a]b", "a]b", true),
        ("**", "file", true),
        ("**", "dir/file", true),
        ("**/", "dir/file", true),
        ("**/file", "file", true),
        ("**/file", "a/b/file", true),
        ("**/file", "xfile", false),
        ("**file", "a/xfile", true),
        ("**/dir/file", "x/dir/file", true),
        ("**/*.o", "main.o", true),
        ("**/*.o", "a/b/main.o", true),
        ("**/*.o", "a/b.o/main.c", true),
        ("**/*.o", "main.obj", false),
        ("dir/**", "dir", false),
        ("dir/**", "dir/a/b", true),
        ("dir**", "directory/x", true),
        ("dir/**/file", "dir/file", true),
        ("dir/**/file", "dir/a/b/file", true),
        ("dir/**/file", "dir/a/xfile", false),
        ("a/**/b/**/c", "a/x/b/y/z/c", true),
        ("a/**/b/**/c", "a/x/c/y/z/b", false),
        ("**/a*/*", "x/ab/c", true),
        ("**/**/x", "x", true),
        ("**/**/x", "a/b/x", true),
        ("***/x", "a/b/x", true),
        ("a**/b", "ab", true),
        ("a**/b", "axx/b", true),
        ("a\\*b", "a*b", true),
        ("a\\*b", "axb", false),
        ("\\!x", "!x", true),
        ("a.b", "axb", false),
        ("a+(b)|{c}$", "a+(b)|{c}$", true),
        ("*+(b)", "a+(b)", true),
        ("Dir", "dir", false),
        ("/file", "file", false),
        (".", ".", true),
        (".", "file", false),
        ("..", "../file", true),
        ("a^b", "a^b", true),
        ("^a*", "ab", true),
        ("a^*", "a^b", false),
        ("**/.git", "a/.git/config", true),
        ("*.[ch]", "x.h", true),
        ("a/*/c", "a/b/c/d", true),
        ("a/*/c", "a/b/b/c", false),
    ] {
        assert_eq!(matcher(&[pattern]).matches(path), expected, "{pattern} {path}");
    }
}

#[test]
fn later_patterns_override_earlier_ones() {
    for (patterns, path, expected) in [
        (&["*", "!keep"][..], "keep", false),
        (&["*", "!keep"], "keep/a", false),
        (&["*", "!keep"], "other", true),
        (&["!keep", "*"], "keep", true),
        (&["dir", "!dir/keep"], "dir/keep/x", false),
        (&["dir", "!dir/keep", "dir/keep/x"], "dir/keep/x", true),
        (&["*.md", "!README*.md", "README-secret.md"], "README-secret.md", true),
        (&["*.md", "!README*.md", "README-secret.md"], "README.md", false),
        (&["**", "!**/*.rs"], "src/lib.rs", false),
        (&["**", "!**/*.rs"], "src/lib.c", true),
        (&["dir", "!*.go"], "dir/x.go", true),
        (&["dir", "!**/*.go"], "dir/x.go", false),
        (&[" dir ", "", "  "], "dir", true),
        (&[], "dir", false),
    ] {
        assert_eq!(matcher(patterns).matches(path), expected, "{patterns:?} {path}");
    }
}

#[test]
fn unreadable_patterns_are_refused() {
    assert_eq!(Matcher::new(&["!"]).unwrap_err(), BadPattern::EmptyException);
    for pattern in ["[", "a[]b", "[x-", "a\\", "!a["] {
        let error = Matcher::new(&[pattern]).unwrap_err();
        assert!(matches!(error, BadPattern::Wildcard(_)), "{pattern}");
    }
}

#[test]
fn a_hostile_pattern_costs_no_more_than_its_length_allows() {
    let pattern = format!("{}b", "**/a*/*a*".repeat(40));
    let path = "a/".repeat(500) + "a";
    assert!(!matcher(&[&pattern]).matches(&path));
}

#[test]
fn on_a_walk_an_exception_counts_for_a_directory_only_if_the_directory_matched() {
    let matcher = matcher(&["a/*", "!a*"]);
    let (is_matched, above) = matcher.matches_directory_in("a", None);
    assert!(!is_matched);
    assert!(matcher.matches_in("a/x", Some(&above)));
    assert!(!matcher.matches("a/x"));
}

fn patterns() -> impl Strategy<Value = Vec<String>> {
    let component = prop_oneof![
        Just("a"),
        Just("b"),
        Just("*"),
        Just("**"),
        Just("a*"),
        Just("?"),
        Just("[ab]")
    ];
    let pattern = prop::collection::vec(component, 1..4).prop_map(|parts| parts.join("/"));
    prop::collection::vec(pattern, 0..5)
}

proptest! {
    #[test]
    fn without_exceptions_a_walk_gives_what_the_whole_path_does(
        patterns in patterns(),
        components in prop::collection::vec(prop_oneof![Just("a"), Just("b"), Just("ab")], 1..5),
    ) {
        let matcher = Matcher::new(&patterns).unwrap();
        let mut above: Option<Matched> = None;
        for depth in 1..=components.len() {
            let path = components[..depth].join("/");
            let (matched, results) = matcher.matches_directory_in(&path, above.as_ref());
            prop_assert_eq!(matched, matcher.matches_in(&path, above.as_ref()));
            prop_assert_eq!(matched, matcher.matches(&path), "{} {:?}", path, patterns);
            above = Some(results);
        }
    }

    #[test]
    fn a_pattern_without_stars_of_two_matches_as_the_single_wildcard_does(
        pattern in "[ab*?/]{1,6}",
        path in "[ab/]{1,6}",
    ) {
        prop_assume!(!pattern.contains("**") && clean_path(&pattern) == pattern);
        let pattern = Pattern::compile(&pattern, false).unwrap();
        prop_assert_eq!(
            pattern.matches(&path),
            super::super::glob_match(pattern.text(), &path).unwrap()
        );
    }
}
