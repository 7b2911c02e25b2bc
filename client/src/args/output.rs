//! `--output`: what becomes of a build's result, and where it goes.

use super::boolean;
use super::csv;
use super::invalid::Invalid;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// One exporter, and its way back to the client if there is one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Output {
    /// The exporter's name on the wire.
    pub(crate) kind: String,
    /// Its attributes on the wire.
    pub(crate) attributes: BTreeMap<String, String>,
    /// Where the client puts what it is sent.
    pub(crate) destination: Destination,
}

/// Where an export ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Destination {
    /// It stays with the daemon, or goes from there to a registry.
    Daemon,
    /// One file.
    File(PathBuf),
    /// Standard output.
    Stdout,
    /// A tree of files.
    Directory {
        /// Its root.
        path: PathBuf,
        /// Whether files that are not exported are removed.
        mirror: bool,
    },
    /// An image layout that the daemon writes blob by blob.
    Layout(PathBuf),
    /// The docker engine of this machine.
    Engine,
}

/// Reads one `--output`. `None` is `type=cacheonly`: only the cache is wanted.
pub(crate) fn parse(text: &str) -> Result<Option<Output>, Invalid> {
    let fields = csv::fields(text)?;
    if let [field] = fields.as_slice()
        && field == text
        && !text.starts_with("type=")
    {
        return Ok(Some(short(text)));
    }
    let mut kind = None;
    let mut dest = None;
    let mut attributes = BTreeMap::new();
    for (key, value) in csv::pairs(text)? {
        match key.as_str() {
            "type" => kind = Some(value),
            "dest" => dest = Some(value),
            _ => drop(attributes.insert(key, value)),
        }
    }
    long(kind.filter(|kind| !kind.is_empty()).ok_or(Invalid::NoType)?, dest.as_deref(), attributes)
}

/// `-o DIR` and `-o -`.
fn short(text: &str) -> Output {
    let (kind, destination) = if text == "-" {
        ("tar", Destination::Stdout)
    } else {
        ("local", Destination::Directory { path: text.into(), mirror: false })
    };
    Output { kind: kind.to_owned(), attributes: BTreeMap::new(), destination }
}

fn long(
    kind: String,
    dest: Option<&str>,
    mut attributes: BTreeMap<String, String>,
) -> Result<Option<Output>, Invalid> {
    let missing = || Invalid::Missing { key: "dest", of: format!("type={kind}") };
    let to_directory = || match dest {
        None | Some("") => Err(missing()),
        Some("-") => Err(Invalid::value("dest", "-", "a directory")),
        Some(path) => Ok(PathBuf::from(path)),
    };
    let to_file = || match dest {
        None | Some("" | "-") => Destination::Stdout,
        Some(path) => Destination::File(path.into()),
    };
    let is_layout = attributes.get("tar").is_some_and(|tar| boolean::parse(tar) == Ok(false));
    let destination = match kind.as_str() {
        "cacheonly" => return Ok(None),
        "local" => {
            let mirror = match attributes.get("mode").map(String::as_str) {
                None | Some("copy") => false,
                Some("delete") => true,
                Some(mode) => return Err(Invalid::value("mode", mode, "copy or delete")),
            };
            Destination::Directory { path: to_directory()?, mirror }
        }
        "oci" | "docker" if is_layout => Destination::Layout(to_directory()?),
        "docker" if dest.is_none_or(str::is_empty) => Destination::Engine,
        "tar" | "oci" | "docker" => to_file(),
        "registry" => {
            set_push(&mut attributes);
            let kind = "image".to_owned();
            return Ok(Some(Output { kind, attributes, destination: Destination::Daemon }));
        }
        _ if dest.is_some() => return Err(Invalid::UnknownKey("dest".to_owned())),
        _ => Destination::Daemon,
    };
    Ok(Some(Output { kind, attributes, destination }))
}

/// Adds what `--push` and `--load` ask for to the outputs that are there.
pub(crate) fn add_shorthands(outputs: &mut Vec<Output>, push: bool, load: bool) {
    if push {
        let mut images: Vec<_> = outputs.iter_mut().filter(|out| out.kind == "image").collect();
        if images.is_empty() {
            let mut attributes = BTreeMap::new();
            set_push(&mut attributes);
            let kind = "image".to_owned();
            outputs.push(Output { kind, attributes, destination: Destination::Daemon });
        } else {
            for image in &mut images {
                set_push(&mut image.attributes);
            }
        }
    }
    if load && !outputs.iter().any(|output| output.destination == Destination::Engine) {
        let kind = "docker".to_owned();
        let destination = Destination::Engine;
        outputs.push(Output { kind, attributes: BTreeMap::new(), destination });
    }
}

/// An image that is only pushed need not be unpacked, unless the user says so.
fn set_push(attributes: &mut BTreeMap<String, String>) {
    attributes.insert("push".to_owned(), "true".to_owned());
    attributes.entry("unpack".to_owned()).or_insert_with(|| "false".to_owned());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn output(kind: &str, attributes: &[(&str, &str)], destination: Destination) -> Output {
        let attributes = attributes.iter().map(|&(k, v)| (k.to_owned(), v.to_owned())).collect();
        Output { kind: kind.to_owned(), attributes, destination }
    }

    #[test]
    fn outputs_mean_what_they_mean_to_buildx() {
        let directory = |path: &str, mirror| Destination::Directory { path: path.into(), mirror };
        for (text, expected) in [
            ("out", output("local", &[], directory("out", false))),
            ("-", output("tar", &[], Destination::Stdout)),
            (
                "type=local,dest=d,mode=delete",
                output("local", &[("mode", "delete")], directory("d", true)),
            ),
            ("type=tar", output("tar", &[], Destination::Stdout)),
            ("type=tar,dest=a.tar", output("tar", &[], Destination::File("a.tar".into()))),
            ("type=oci,dest=-", output("oci", &[], Destination::Stdout)),
            (
                "type=oci,tar=false,dest=d",
                output("oci", &[("tar", "false")], Destination::Layout("d".into())),
            ),
            ("type=docker", output("docker", &[], Destination::Engine)),
            ("type=docker,dest=d.tar", output("docker", &[], Destination::File("d.tar".into()))),
            (
                "type=image,name=a,push=true",
                output("image", &[("name", "a"), ("push", "true")], Destination::Daemon),
            ),
            (
                "type=registry,name=a",
                output(
                    "image",
                    &[("name", "a"), ("push", "true"), ("unpack", "false")],
                    Destination::Daemon,
                ),
            ),
            (r#"type=image,"name=a,b""#, output("image", &[("name", "a,b")], Destination::Daemon)),
        ] {
            assert_eq!(parse(text), Ok(Some(expected)), "{text}");
        }
        assert_eq!(parse("type=cacheonly"), Ok(None));
    }

    #[test]
    fn an_output_without_a_place_to_go_is_refused() {
        for (text, message) in [
            ("type=local", "dest is missing (type=local)"),
            ("type=local,dest=-", r#"dest cannot be "-": expected a directory"#),
            ("type=,dest=x", "type is missing"),
            ("dest=x,name=y", "type is missing"),
            ("type=local,dest=d,mode=move", r#"mode cannot be "move": expected copy or delete"#),
            ("type=image,x", r#""x" is not of the form key=value"#),
        ] {
            assert_eq!(parse(text).unwrap_err().to_string(), message, "{text}");
        }
    }

    #[test]
    fn push_turns_image_outputs_into_pushes_or_adds_one() {
        let pushed = [("push", "true"), ("unpack", "false")];
        let mut none = vec![];
        add_shorthands(&mut none, true, false);
        assert_eq!(none, [output("image", &pushed, Destination::Daemon)]);

        let mut some = vec![output("image", &[], Destination::Daemon)];
        add_shorthands(&mut some, true, false);
        assert_eq!(some, none);
    }

    #[test]
    fn load_adds_one_export_to_the_engine() {
        let mut outputs = vec![output("docker", &[], Destination::File("a".into()))];
        add_shorthands(&mut outputs, false, true);
        add_shorthands(&mut outputs, false, true);
        assert_eq!(outputs.len(), 2);
        assert_eq!(outputs[1], output("docker", &[], Destination::Engine));
    }
}
