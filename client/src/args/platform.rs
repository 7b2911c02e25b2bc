//! `--platform`: `OS/ARCHITECTURE[/VARIANT]`.

use super::invalid::Invalid;
use std::env::consts::ARCH;

const EXPECTED: &str = "a platform (such as linux/arm64)";

/// Reads the flag's values, each of which may be a list, into the frontend's list.
pub(crate) fn parse(values: &[String]) -> Result<String, Invalid> {
    let platforms: Result<Vec<_>, _> =
        values.iter().flat_map(|value| value.split(',')).map(one).collect();
    Ok(platforms?.join(","))
}

/// One platform, in the spelling that image manifests use.
fn one(text: &str) -> Result<String, Invalid> {
    let lower = text.trim().to_ascii_lowercase();
    let is_word = |word: &&str| {
        !word.is_empty() && word.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-()".contains(&b))
    };
    let parts: Vec<&str> = lower.split('/').collect();
    if !parts.iter().all(is_word) {
        return Err(Invalid::not(text, EXPECTED));
    }
    let (os, architecture, variant) = match *parts.as_slice() {
        ["local"] => ("linux", ARCH, ""),
        [os @ ("linux" | "windows" | "darwin" | "freebsd")] => (os, ARCH, ""),
        [architecture] if is_architecture(architecture) => ("linux", architecture, ""),
        [os, architecture] => (os, architecture, ""),
        [os, architecture, variant] => (os, architecture, variant),
        _ => return Err(Invalid::not(text, EXPECTED)),
    };
    let os = if os == "macos" { "darwin" } else { os };
    let (architecture, variant) = normalize(architecture, variant);
    Ok(if variant.is_empty() {
        format!("{os}/{architecture}")
    } else {
        format!("{os}/{architecture}/{variant}")
    })
}

fn is_architecture(word: &str) -> bool {
    const KNOWN: [&str; 17] = [
        "386", "amd64", "arm", "arm64", "loong64", "mips", "mips64", "mips64le", "mipsle", "ppc64",
        "ppc64le", "riscv64", "s390x", "wasm", "armhf", "armel", "aarch64",
    ];
    KNOWN.contains(&word) || matches!(word, "x86_64" | "x86-64" | "i386")
}

/// Other names of the same processor, and variants that are what is meant without one.
fn normalize<'a>(architecture: &'a str, variant: &'a str) -> (&'a str, &'a str) {
    match (architecture, variant) {
        ("i386" | "x86" | "386", _) => ("386", ""),
        ("x86_64" | "x86-64" | "amd64", "v1") => ("amd64", ""),
        ("x86_64" | "x86-64" | "amd64", variant) => ("amd64", variant),
        ("aarch64" | "arm64", "8" | "v8" | "v8.0") => ("arm64", ""),
        ("aarch64" | "arm64", "9" | "9.0" | "v9.0") => ("arm64", "v9"),
        ("aarch64" | "arm64", variant) => ("arm64", variant),
        ("armhf", _) | ("arm", "" | "7" | "v7") => ("arm", "v7"),
        ("armel", _) | ("arm", "6") => ("arm", "v6"),
        ("arm", "5") => ("arm", "v5"),
        ("arm", "8") => ("arm", "v8"),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn platforms_are_spelled_as_manifests_spell_them() {
        for (text, expected) in [
            ("linux/amd64", "linux/amd64"),
            ("linux/x86_64", "linux/amd64"),
            ("Linux/AArch64", "linux/arm64"),
            ("linux/arm64/v8", "linux/arm64"),
            ("linux/arm", "linux/arm/v7"),
            ("linux/arm/6", "linux/arm/v6"),
            ("arm64", "linux/arm64"),
            ("linux/amd64,linux/riscv64", "linux/amd64,linux/riscv64"),
            ("windows/amd64", "windows/amd64"),
        ] {
            assert_eq!(parse(&[text.to_owned()]), Ok(expected.to_owned()), "{text}");
        }
    }

    #[test]
    fn what_is_no_platform_is_refused() {
        for text in ["", "linux/", "plan9x", "a/b/c/d", "linux/am d64"] {
            assert!(parse(&[text.to_owned()]).is_err(), "{text}");
        }
    }
}
