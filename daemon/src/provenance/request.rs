//! What was asked for, as predicates tell it.

use std::collections::BTreeMap;

use serde::Serialize;

use super::producers::Producers;
use super::sources::{DigestSet, Sources, commit_digests, digests};
use crate::frontend::Request;
use crate::ops::source::git::GitRef;
use crate::ops::source::without_credentials;

/// Options that are about the daemon's host and not about what is built.
const OF_HOST: [&str; 4] = ["cgroup-parent", "image-resolve-mode", "platform", "cache-imports"];
/// The option with the build context, unless another says which.
const CONTEXT: &str = "context";
/// Begins options about the repository that the client's files are from.
const VCS: &str = "vcs:";

/// A request of a frontend, or of the daemon.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RequestProvenance {
    pub(super) config_source: ConfigSource,
    pub(super) request: Parameters,
}

/// Where the instructions are from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct ConfigSource {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) uri: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) digest: DigestSet,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) path: String,
}

/// What was asked of whom.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Parameters {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) frontend: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) args: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) secrets: Vec<Used>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) ssh: Vec<Used>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) locals: Vec<Local>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) inputs: BTreeMap<String, RequestProvenance>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) root: Option<Box<RequestProvenance>>,
    #[serde(skip_serializing_if = "is_zero")]
    pub(super) compatibility_version: u32,
}

/// A secret or an ssh agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Used {
    pub(super) id: String,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(super) optional: bool,
}

/// A directory of the client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Local {
    pub(super) name: String,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks by reference")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// An address without credentials. In the name of an image what is before `@` is none.
fn redacted(address: &str) -> String {
    let is_image = ["docker-image:", "oci-layout:"].iter().any(|it| address.starts_with(it));
    if is_image { address.to_owned() } else { without_credentials(address) }
}

impl RequestProvenance {
    /// Of `request`. Where its context is one of `sources`, that says what it was.
    pub(super) fn new(request: &Request, sources: &Sources, producers: &Producers) -> Self {
        let context = request.options.get("contextkey").filter(|key| !key.is_empty());
        let context = context.map_or(CONTEXT, String::as_str);
        let mut args: BTreeMap<String, String> = request
            .options
            .iter()
            .filter(|(name, _)| !OF_HOST.contains(&name.as_str()) && !name.starts_with("attest:"))
            .map(|(name, value)| {
                let is_address =
                    name == context || name.starts_with("context:") || name == "vcs:source";
                let value = if is_address { redacted(value) } else { value.clone() };
                (name.clone(), value)
            })
            .collect();
        let is_given = |name: &str| args.get(name).is_some_and(|value| !value.is_empty());
        let context = match request.options.get("contextkey") {
            Some(key) if !key.is_empty() => key.as_str(),
            _ if is_given("input:context") => "input:context",
            _ => CONTEXT,
        };
        let mut take = |name: &str| match args.get(name) {
            Some(value) if !value.is_empty() => args.remove(name),
            _ => None,
        };
        let mut config_source =
            take(context).map(|uri| ConfigSource::new(uri, sources)).unwrap_or_default();
        config_source.path = take("filename").unwrap_or_default();
        let inputs = request.inputs.iter().filter_map(|(name, input)| {
            let producer = producers.of(input.as_ref()?)?;
            Some((name.clone(), producer))
        });
        let inputs = inputs.collect();
        let frontend = request.frontend.clone();
        Self { config_source, request: Parameters { frontend, args, inputs, ..Default::default() } }
    }

    /// Whether nothing was asked for that is told of.
    pub(super) fn is_empty(&self) -> bool {
        let request = &self.request;
        request.frontend.is_empty() && request.args.is_empty() && request.inputs.is_empty()
    }

    /// Takes what options say of the client's repository out of the arguments.
    pub(super) fn take_vcs(&mut self) -> BTreeMap<String, String> {
        let taken = self.request.args.extract_if(.., |name, _| name.starts_with(VCS));
        taken
            .filter(|(_, value)| !value.is_empty())
            .map(|(name, value)| (name[VCS.len()..].to_owned(), value))
            .collect()
    }
}

impl Parameters {
    /// Leaves out what may be nobody's business: values of arguments and labels, and what secrets
    /// were asked for. Says whether an argument was left out.
    pub(super) fn minimize(&mut self) -> bool {
        let count = self.args.len();
        self.args.retain(|name, _| !name.starts_with("build-arg:") && !name.starts_with("label:"));
        let mut has_left_out = self.args.len() < count;
        self.secrets.clear();
        self.ssh.clear();
        let below = self.inputs.values_mut().chain(self.root.as_deref_mut());
        for request in below {
            has_left_out |= request.request.minimize();
        }
        has_left_out
    }
}

impl ConfigSource {
    fn new(uri: String, sources: &Sources) -> Self {
        let git = GitRef::parse(&uri).ok().flatten();
        if let Some(git) = git {
            let whole = git.fragment_form(&git.subdir);
            let digest = sources.git.get(&git.fragment_form("")).map(|it| commit_digests(it));
            let uri = if digest.is_some() { whole } else { uri };
            return Self { uri, digest: digest.unwrap_or_default(), path: String::new() };
        }
        let digest = sources.http.get(&uri).map(digests).unwrap_or_default();
        Self { uri, digest, path: String::new() }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn provenance(options: &[(&str, &str)], sources: &Sources) -> RequestProvenance {
        let options = options.iter().map(|(name, value)| ((*name).into(), (*value).into()));
        let request = Request {
            frontend: "dockerfile.v0".into(),
            options: options.collect(),
            ..Request::default()
        };
        RequestProvenance::new(&request, sources, &Producers::default())
    }

    #[test]
    fn a_repository_as_context_is_named_with_its_commit() {
        let mut sources = Sources::default();
        sources.add_git("https://u:p@h/a.git#v1", "c".repeat(40));
        let options = [("context", "https://u:p@h/a.git?ref=v1&subdir=sub"), ("filename", "D")];
        let found = provenance(&options, &sources);
        let expected = json!({
            "configSource": {
                "uri": "https://xxxxx:xxxxx@h/a.git#v1:sub",
                "digest": { "sha1": "c".repeat(40) },
                "path": "D",
            },
            "request": { "frontend": "dockerfile.v0" },
        });
        assert_eq!(serde_json::to_value(found).unwrap(), expected);
    }

    #[test]
    fn what_is_about_the_host_or_the_attestation_is_not_told() {
        let options = [
            ("attest:provenance", "mode=max"),
            ("cgroup-parent", "/x"),
            ("platform", "linux/arm64"),
            ("build-arg:A", "1"),
            ("context:foo", "https://u:p@h/x"),
            ("context:bar", "oci-layout://bar@sha256:aa"),
            ("vcs:source", "https://u:p@h/r"),
            ("vcs:revision", ""),
        ];
        let mut found = provenance(&options, &Sources::default());
        let vcs = found.take_vcs();
        assert_eq!(vcs, BTreeMap::from([("source".into(), "https://xxxxx:xxxxx@h/r".into())]));
        let args = [
            ("build-arg:A", "1"),
            ("context:foo", "https://xxxxx:xxxxx@h/x"),
            ("context:bar", "oci-layout://bar@sha256:aa"),
        ];
        let args = args.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(found.request.args, BTreeMap::from(args));
    }

    #[test]
    fn the_least_that_can_be_told_has_no_values_of_arguments() {
        let mut inner = provenance(&[("label:l", "1"), ("target", "t")], &Sources::default());
        inner.request.secrets.push(Used { id: "s".into(), optional: true });
        let mut outer = provenance(&[("target", "u")], &Sources::default()).request;
        assert!(!outer.minimize());
        outer.inputs.insert("in".into(), inner);
        assert!(outer.minimize());
        let inner = &outer.inputs["in"].request;
        assert_eq!(inner.args.keys().collect::<Vec<_>>(), ["target"]);
        assert!(inner.secrets.is_empty());
        assert!(!outer.minimize());
    }
}
