//! The build context and `--build-context`: where files of a build come from.

use super::invalid::Invalid;
use super::reference;
use std::path::PathBuf;

/// Where the main context comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Context {
    /// A directory of this machine.
    Directory(PathBuf),
    /// A git repository or an HTTP file, which the daemon gets.
    Remote(String),
    /// An archive or a Dockerfile on standard input.
    Stdin,
}

impl Context {
    /// Sorts a command line's context: a directory that exists is never taken for a URL.
    pub(crate) fn parse(text: &str, is_directory: impl Fn(&str) -> bool) -> Result<Self, Invalid> {
        match text {
            "" => Err(Invalid::not(text, "a build context (\".\" is the current directory)")),
            "-" => Ok(Self::Stdin),
            _ if is_directory(text) => Ok(Self::Directory(text.into())),
            _ if is_remote(text) => Ok(Self::Remote(text.to_owned())),
            _ => Err(Invalid::not(text, "a directory, a git repository or a URL")),
        }
    }
}

/// One additional context.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NamedContext {
    /// The name that instructions use.
    pub(crate) name: String,
    /// Where it comes from.
    pub(crate) source: NamedSource,
}

/// Where an additional context comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum NamedSource {
    /// A directory of this machine.
    Directory(PathBuf),
    /// Something that the daemon gets: an image, a repository, a URL.
    Remote(String),
    /// An image in a layout on this machine.
    Layout(Layout),
}

/// An image in a layout on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Layout {
    /// The layout's root.
    pub(crate) path: PathBuf,
    /// The image's name in it.
    pub(crate) tag: Option<String>,
    /// Its digest; without one the layout's index says.
    pub(crate) digest: Option<String>,
}

const LAYOUT: &str = "oci-layout://";

/// Reads one `--build-context`.
pub(crate) fn parse_named(text: &str) -> Result<NamedContext, Invalid> {
    let (name, source) = text
        .split_once('=')
        .filter(|(name, source)| !name.is_empty() && !source.is_empty())
        .ok_or_else(|| Invalid::NotKeyValue(text.to_owned()))?;
    let source = if let Some(layout) = source.strip_prefix(LAYOUT) {
        NamedSource::Layout(Layout::parse(layout))
    } else if source.starts_with("docker-image://") || is_remote(source) {
        NamedSource::Remote(source.to_owned())
    } else {
        NamedSource::Directory(source.into())
    };
    Ok(NamedContext { name: familiar(name), source })
}

/// Contexts can be named like images; the default registry and tag are left out then.
fn familiar(name: &str) -> String {
    let name = name.strip_prefix("docker.io/").unwrap_or(name);
    let name = name.strip_prefix("library/").unwrap_or(name);
    name.strip_suffix(":latest").unwrap_or(name).to_owned()
}

impl Layout {
    fn parse(text: &str) -> Self {
        let (rest, digest) = match text.rsplit_once('@') {
            Some((rest, digest)) if reference::is_digest(digest) => (rest, Some(digest)),
            _ => (text, None),
        };
        let (path, tag) = match rest.rsplit_once(':') {
            Some((path, tag)) if !tag.is_empty() && !tag.contains('/') => (path, Some(tag)),
            _ => (rest, None),
        };
        let tag = tag.or_else(|| digest.is_none().then_some("latest"));
        Self { path: path.into(), tag: tag.map(str::to_owned), digest: digest.map(str::to_owned) }
    }
}

/// Whether the daemon can get a context itself.
fn is_remote(text: &str) -> bool {
    let has_scheme =
        ["http://", "https://", "git://", "ssh://"].iter().any(|scheme| text.starts_with(scheme));
    has_scheme || text.starts_with("github.com/") || is_scp_like(text)
}

/// `USER@HOST:PATH`, as git takes it.
fn is_scp_like(text: &str) -> bool {
    text.split_once(':').is_some_and(|(host, path)| {
        !path.is_empty()
            && host.split_once('@').is_some_and(|(user, host)| {
                let is_word = |word: &str| {
                    !word.is_empty()
                        && word.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
                };
                is_word(user) && is_word(host)
            })
    })
}

/// Whether a URL names a repository and has a query that the frontend must understand.
pub(crate) fn has_git_query(url: &str) -> bool {
    let url = url.split('#').next().unwrap_or_default();
    url.split_once('?').is_some_and(|(address, query)| {
        !query.is_empty()
            && (address.strip_suffix(".git").is_some() || !address.starts_with("http"))
    })
}

/// Whether a URL names a repository that is reached through ssh.
pub(crate) fn is_git_over_ssh(url: &str) -> bool {
    url.starts_with("ssh://") || is_scp_like(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_context_is_a_directory_first() {
        let is_directory = |path: &str| path == "dir" || path == "github.com/a/b";
        let remote = |url: &str| Ok(Context::Remote(url.to_owned()));
        for (text, expected) in [
            ("-", Ok(Context::Stdin)),
            ("dir", Ok(Context::Directory("dir".into()))),
            ("github.com/a/b", Ok(Context::Directory("github.com/a/b".into()))),
            ("github.com/a/c", remote("github.com/a/c")),
            ("https://h/r.git#main:sub", remote("https://h/r.git#main:sub")),
            ("git@h:r.git", remote("git@h:r.git")),
        ] {
            assert_eq!(Context::parse(text, is_directory), expected, "{text}");
        }
        let error = Context::parse("missing", is_directory).unwrap_err();
        assert_eq!(error.to_string(), r#""missing" is not a directory, a git repository or a URL"#);
    }

    #[test]
    fn a_named_context_is_a_directory_an_image_or_a_layout() {
        let layout = |path: &str, tag: Option<&str>, digest: Option<&str>| {
            NamedSource::Layout(Layout {
                path: path.into(),
                tag: tag.map(str::to_owned),
                digest: digest.map(str::to_owned),
            })
        };
        let digest = format!("sha256:{}", "a".repeat(64));
        let with_digest = format!("x=oci-layout://p@{digest}");
        for (text, name, source) in [
            ("src=../lib", "src", NamedSource::Directory("../lib".into())),
            (
                "alpine=docker-image://a:1",
                "alpine",
                NamedSource::Remote("docker-image://a:1".into()),
            ),
            ("docker.io/library/alpine:latest=d", "alpine", NamedSource::Directory("d".into())),
            ("x=oci-layout://p", "x", layout("p", Some("latest"), None)),
            ("x=oci-layout:///p/q:1.0", "x", layout("/p/q", Some("1.0"), None)),
            (with_digest.as_str(), "x", layout("p", None, Some(&digest))),
        ] {
            let expected = NamedContext { name: name.to_owned(), source };
            assert_eq!(parse_named(text), Ok(expected), "{text}");
        }
        for text in ["src", "=dir", "src="] {
            assert!(parse_named(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_query_counts_only_for_repositories() {
        for (url, expected) in [
            ("https://h/r.git?ref=main", true),
            ("https://h/r.git#main?x=y", false),
            ("https://h/file.tar?x=y", false),
            ("git@h:r.git?ref=main", true),
        ] {
            assert_eq!(has_git_query(url), expected, "{url}");
        }
    }
}
