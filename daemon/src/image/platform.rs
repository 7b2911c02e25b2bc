//! Platforms: `os[(version)]/architecture[/variant]`, and which of an index's manifests suits one.

use std::fmt;
use std::str::FromStr;

use kiln_proto::pb;
use serde::{Deserialize, Serialize};

/// A platform in normal form (`x86_64` is `amd64`, `arm64/v8` is `arm64`, …), spelled as the OCI
/// image spec does.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub(crate) struct Platform {
    pub(crate) os: String,
    pub(crate) architecture: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) variant: String,
    #[serde(default, rename = "os.version", skip_serializing_if = "String::is_empty")]
    pub(crate) os_version: String,
}

/// A text that names no platform. BuildKit's clients know the middle of these messages.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InvalidPlatform {
    /// A part that is empty, or has other characters.
    #[error(
        "{part:?} is an invalid component of {text:?}: platform specifier component must match \
         \"^[A-Za-z0-9_.-]+$\": invalid argument"
    )]
    Part { part: String, text: String },
    /// A single word that is known as neither.
    #[error("{0:?}: unknown operating system or architecture: invalid argument")]
    Word(String),
    /// More parts than a platform has.
    #[error(
        "{0:?}: cannot parse platform specifier: it has the form \
         os[(version)]/architecture[/variant]"
    )]
    Parts(String),
}

impl Platform {
    /// The platform with its parts in normal form.
    pub(crate) fn new(os: &str, architecture: &str, variant: &str) -> Self {
        let os = match os.to_ascii_lowercase().as_str() {
            "" => "linux".to_owned(),
            "macos" => "darwin".to_owned(),
            os => os.to_owned(),
        };
        let architecture = architecture.to_ascii_lowercase();
        let variant = variant.to_ascii_lowercase();
        let (architecture, variant) = match (architecture.as_str(), variant.as_str()) {
            ("", "") => (host_architecture(), ""),
            ("x86_64" | "x86-64" | "amd64", "v1") => ("amd64", ""),
            ("x86_64" | "x86-64" | "amd64", variant) => ("amd64", variant),
            ("i386" | "i686" | "386", _) => ("386", ""),
            ("aarch64" | "arm64", "" | "8" | "v8") => ("arm64", ""),
            ("aarch64" | "arm64", variant) => ("arm64", variant),
            ("armhf", _) | ("arm", "" | "7") => ("arm", "v7"),
            ("armel", _) | ("arm", "6") => ("arm", "v6"),
            ("arm", "5") => ("arm", "v5"),
            ("arm", "8") => ("arm", "v8"),
            (architecture, variant) => (architecture, variant),
        };
        let (architecture, variant) = (architecture.to_owned(), variant.to_owned());
        Self { os, architecture, variant, os_version: String::new() }
    }

    /// The platform that this daemon runs on.
    pub(crate) fn host() -> Self {
        Self::new("linux", host_architecture(), "")
    }

    /// Platforms whose images run where this one's do, best first: this one, then older variants.
    fn accepted(&self) -> Vec<Self> {
        let variants: &[&str] = match (self.architecture.as_str(), self.variant.as_str()) {
            ("arm", "v8") => &["v8", "v7", "v6", "v5"],
            ("arm", "v7") => &["v7", "v6", "v5"],
            ("arm", "v6") => &["v6", "v5"],
            ("amd64", "v4") => &["v4", "v3", "v2", ""],
            ("amd64", "v3") => &["v3", "v2", ""],
            ("amd64", "v2") => &["v2", ""],
            ("arm64", variant) if !variant.is_empty() => {
                let mut accepted = vec![self.clone(), Self::new(&self.os, "arm64", "")];
                accepted.extend(Self::new(&self.os, "arm", "v8").accepted());
                return accepted;
            }
            ("arm64", _) => {
                let mut accepted = vec![self.clone()];
                accepted.extend(Self::new(&self.os, "arm", "v8").accepted());
                return accepted;
            }
            _ => return vec![self.clone()],
        };
        let with = |variant: &&str| Self { variant: (*variant).to_owned(), ..self.clone() };
        variants.iter().map(with).collect()
    }

    /// How well an image of platform `offered` runs on this one: lower is better, `None` is not
    /// at all.
    pub(crate) fn rank(&self, offered: &Self) -> Option<usize> {
        if !self.takes_version_of(offered) {
            return None;
        }
        self.accepted().iter().position(|accepted| {
            (&accepted.os, &accepted.architecture, &accepted.variant)
                == (&offered.os, &offered.architecture, &offered.variant)
        })
    }

    /// Windows runs what was made for its own build, whatever the revision; other systems have no
    /// versions.
    fn takes_version_of(&self, offered: &Self) -> bool {
        let build = |version: &str| version.splitn(4, '.').take(3).collect::<Vec<_>>().join(".");
        self.os != "windows"
            || self.os_version.is_empty()
            || offered.os_version.is_empty()
            || build(&self.os_version) == build(&offered.os_version)
    }

    pub(crate) fn to_pb(&self) -> pb::Platform {
        pb::Platform {
            os: self.os.clone(),
            architecture: self.architecture.clone(),
            variant: self.variant.clone(),
            os_version: self.os_version.clone(),
            os_features: Vec::new(),
        }
    }
}

impl From<&pb::Platform> for Platform {
    fn from(sent: &pb::Platform) -> Self {
        let normal = Self::new(&sent.os, &sent.architecture, &sent.variant);
        Self { os_version: sent.os_version.clone(), ..normal }
    }
}

impl FromStr for Platform {
    type Err = InvalidPlatform;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let word = |part: &&str| {
            let plain = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
            !part.is_empty() && part.chars().all(plain)
        };
        let invalid =
            |part: &str| InvalidPlatform::Part { part: part.to_owned(), text: text.to_owned() };
        let mut parts: Vec<&str> = text.split('/').collect();
        let mut version = "";
        if let [os, _, ..] = parts.as_mut_slice()
            && let Some((name, rest)) = os.split_once('(')
        {
            version = rest.strip_suffix(')').filter(|v| word(v)).ok_or_else(|| invalid(os))?;
            *os = name;
        }
        let with_version = |platform: Self| Self { os_version: version.to_owned(), ..platform };
        if let Some(part) = parts.iter().find(|part| !word(part)) {
            return Err(invalid(part));
        }
        match parts.as_slice() {
            [os] if is_known_os(os) => Ok(Self::new(os, host_architecture(), "")),
            [architecture] if is_known_architecture(architecture) => {
                Ok(Self::new("linux", architecture, ""))
            }
            [os, architecture] => Ok(with_version(Self::new(os, architecture, ""))),
            [os, architecture, variant] => Ok(with_version(Self::new(os, architecture, variant))),
            [_] => Err(InvalidPlatform::Word(text.to_owned())),
            _ => Err(InvalidPlatform::Parts(text.to_owned())),
        }
    }
}

fn is_known_os(os: &str) -> bool {
    matches!(os, "linux" | "windows" | "darwin" | "macos" | "freebsd" | "netbsd" | "openbsd")
}

fn is_known_architecture(architecture: &str) -> bool {
    const KNOWN: [&str; 18] = [
        "386", "amd64", "arm", "arm64", "loong64", "mips", "mipsle", "mips64", "mips64le", "ppc64",
        "ppc64le", "riscv64", "s390x", "wasm", "x86_64", "aarch64", "armhf", "armel",
    ];
    KNOWN.contains(&architecture)
}

fn host_architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        "loongarch64" => "loong64",
        "powerpc64" => "ppc64le",
        other => other,
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.os)?;
        if !self.os_version.is_empty() {
            write!(f, "({})", self.os_version)?;
        }
        write!(f, "/{}", self.architecture)?;
        if self.variant.is_empty() { Ok(()) } else { write!(f, "/{}", self.variant) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn platforms_are_read_into_normal_form() {
        let cases = [
            ("linux/amd64", "linux/amd64"),
            ("linux/x86_64", "linux/amd64"),
            ("LINUX/AMD64", "linux/amd64"),
            ("arm64", "linux/arm64"),
            ("linux/arm64/v8", "linux/arm64"),
            ("linux/arm", "linux/arm/v7"),
            ("linux/armhf", "linux/arm/v7"),
            ("linux/arm/v6", "linux/arm/v6"),
            ("windows/amd64", "windows/amd64"),
            ("windows(10.0.1)/amd64", "windows(10.0.1)/amd64"),
            ("linux/unheard-of", "linux/unheard-of"),
        ];
        for (text, normal) in cases {
            assert_eq!(text.parse::<Platform>().unwrap().to_string(), normal, "{text}");
        }
        for text in
            ["", "/", "linux/", "nothing", "a/b/c/d", "linux/a b", "$x/amd64", "a(1/b", "a()/b"]
        {
            assert!(text.parse::<Platform>().is_err(), "{text}");
        }
    }

    #[test]
    fn older_variants_serve_newer_platforms() {
        let platform = |text: &str| text.parse::<Platform>().unwrap();
        let rank = |wanted, offered| platform(wanted).rank(&platform(offered));
        assert_eq!(rank("linux/arm/v7", "linux/arm/v7"), Some(0));
        assert_eq!(rank("linux/arm/v7", "linux/arm/v6"), Some(1));
        assert_eq!(rank("linux/arm/v6", "linux/arm/v7"), None);
        assert_eq!(rank("linux/arm64", "linux/arm/v7"), Some(2));
        assert_eq!(rank("linux/amd64", "linux/arm64"), None);
        assert_eq!(rank("windows(10.0.1.5)/amd64", "windows(10.0.1.7)/amd64"), Some(0));
        assert_eq!(rank("windows(10.0.1.5)/amd64", "windows(10.0.2.5)/amd64"), None);
        assert_eq!(rank("windows/amd64", "windows(10.0.2.5)/amd64"), Some(0));
    }
}
