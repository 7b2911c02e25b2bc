//! Short texts: ignore files and image references.

use kiln_proto::pattern::{Matcher, read_ignore_file};
use kiln_registry::ImageRef;

/// An ignore file, and, behind its last line, a path to match.
pub fn ignore_file(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let (patterns, path) = text.rsplit_once('\n').unwrap_or((&text, "a/b/c"));
    let Ok(patterns) = read_ignore_file(patterns.as_bytes()) else { return };
    let Ok(matcher) = Matcher::new(&patterns) else { return };
    let path: Vec<&str> =
        path.split('/').filter(|part| !matches!(*part, "" | "." | "..")).collect();
    // A walk takes what it knows of a directory along; without exceptions that changes nothing.
    let mut above = None;
    for (depth, _) in path.iter().enumerate() {
        let here = path[..=depth].join("/");
        let in_walk = matcher.matches_in(&here, above.as_ref());
        assert!(matcher.has_exceptions() || in_walk == matcher.matches(&here), "{here:?}");
        let (as_directory, matched) = matcher.matches_directory_in(&here, above.as_ref());
        assert_eq!(as_directory, in_walk, "{here:?}");
        above = Some(matched);
    }
}

/// The name of an image; what is printed is read as the same.
pub fn image_reference(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    match text.parse::<ImageRef>() {
        Ok(image) => assert_eq!(image.to_string().parse::<ImageRef>().ok(), Some(image)),
        Err(error) => drop(error.to_string()),
    }
}
