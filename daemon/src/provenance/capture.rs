//! What the graph behind an answer tells.

use std::collections::{BTreeMap, HashSet};

use kiln_proto::pb;
use kiln_proto::pb::op::Op;

use super::request::RequestProvenance;
use super::sources::{Home, ImageSource, Sources, images_of_platform};
use crate::frontend::{FrontendResult, Ref};
use crate::graph::{Edge, Vertex};
use crate::image::Platform;
use crate::ops::source::git::GitSource;
use crate::ops::source::is_stream;
use crate::solver::Build;

/// All that the provenance of one file system is about.
#[derive(Clone, Debug, Default)]
pub(super) struct Capture {
    pub(super) sources: Sources,
    /// Secrets that steps asked for, by id, and whether they could do without.
    pub(super) secrets: BTreeMap<String, bool>,
    /// The same of ssh agents.
    pub(super) ssh: BTreeMap<String, bool>,
    /// Whether a step could reach the network.
    pub(super) has_network: bool,
    /// Whether something went in of which it is not known what it was.
    has_unknown: bool,
    /// What was asked for; none where the client made the graph.
    pub(super) request: Option<RequestProvenance>,
    /// What the client asked the daemon for, if that is something else.
    pub(super) root: Option<RequestProvenance>,
}

impl Capture {
    /// Of `of`, one of the answers in `result`, for the platform `id`. What was only looked at on
    /// the way to the answer went into it as well.
    pub(super) fn of_answer(
        build: &Build,
        of: &Ref,
        result: &FrontendResult,
        id: &str,
        platforms: &[(String, Platform)],
    ) -> Self {
        let mut capture = Self::of_graph(build, &of.edge);
        if let Some(request) = of.work.request() {
            let producers = &build.daemon.producers;
            let provenance = RequestProvenance::new(request, &capture.sources, producers);
            let root = RequestProvenance::new(of.work.root(), &capture.sources, producers);
            capture.root = Some(root).filter(|root| !root.is_empty() && *root != provenance);
            capture.request = Some(provenance);
        }
        let name = |edge: &Edge| (edge.vertex.digest(), edge.output);
        let mut known: HashSet<_> = result.refs.edges().into_iter().map(name).collect();
        for edge in of.work.files() {
            if known.insert(name(&edge)) {
                capture.merge(Self::of_graph(build, &edge));
            }
        }
        let mut images = of.work.images();
        if platforms.len() > 1 {
            images = images_of_platform(images, id, platforms);
        }
        images.into_iter().for_each(|image| capture.sources.add_image(image));
        capture.sources.settle_images();
        capture
    }

    /// Of everything that `edge` is made from.
    pub(super) fn of_graph(build: &Build, edge: &Edge) -> Self {
        let mut capture = Self::default();
        let mut known = HashSet::new();
        let mut stack = vec![&edge.vertex];
        while let Some(vertex) = stack.pop() {
            if known.insert(vertex.digest()) {
                capture.add(build, vertex);
                stack.extend(vertex.inputs().iter().rev().map(|input| &input.vertex));
            }
        }
        capture
    }

    fn add(&mut self, build: &Build, vertex: &Vertex) {
        match vertex.op() {
            Op::Source(source) if self.add_source(build, vertex, source).is_none() => {
                self.has_unknown = true;
            }
            Op::Exec(exec) => self.add_exec(exec),
            // A build in a build: what it does is not known here.
            Op::Build(_) => self.has_unknown = true,
            Op::Source(_) | Op::File(_) | Op::Merge(_) | Op::Diff(_) | Op::Passthrough(_) => {}
        }
    }

    /// None means that it is not known what the source was.
    fn add_source(&mut self, build: &Build, vertex: &Vertex, source: &pb::SourceOp) -> Option<()> {
        let (scheme, rest) = source.identifier.split_once("://")?;
        let pin = || build.source_pins.get(vertex.digest());
        let platform = vertex.platform().map_or_else(Platform::host, Platform::from);
        match scheme {
            "local" => drop(self.sources.locals.insert(rest.to_owned())),
            "docker-image" => {
                let digest = pin()?.parse().ok()?;
                let image = ImageSource::in_registry(rest.to_owned(), &platform, digest);
                self.sources.add_image(image);
            }
            "oci-layout" => {
                let digest = pin()?.parse().ok()?;
                let image = ImageSource::in_layout(rest.to_owned(), &platform, digest);
                self.sources.add_image(image);
            }
            // A blob is named by what it is.
            "docker-image+blob" | "oci-layout+blob" => {
                let home = if scheme == "oci-layout+blob" { Home::Layout } else { Home::Registry };
                let digest = rest.rsplit_once('@')?.1.parse().ok()?;
                self.sources.blobs.insert((rest.to_owned(), home), digest);
            }
            "http" | "https" if is_stream(rest) => return None,
            "http" | "https" => {
                self.sources.add_http(&source.identifier, pin()?.parse().ok()?);
            }
            "git" => {
                let git = GitSource::parse(source).ok()?;
                self.sources.add_git(&git.address(), pin()?);
                git.secrets().for_each(|id| note(&mut self.secrets, id, true));
                git.agent().into_iter().for_each(|id| note(&mut self.ssh, agent(id), true));
            }
            _ => return None,
        }
        Some(())
    }

    fn add_exec(&mut self, exec: &pb::ExecOp) {
        for mount in &exec.mounts {
            if let Some(secret) = &mount.secret_opt {
                note(&mut self.secrets, &secret.id, secret.optional);
            }
            if let Some(ssh) = &mount.ssh_opt {
                note(&mut self.ssh, agent(&ssh.id), ssh.optional);
            }
        }
        for secret in &exec.secretenv {
            note(&mut self.secrets, &secret.id, secret.optional);
        }
        self.has_network |= exec.network() != pb::NetMode::None;
    }

    fn merge(&mut self, other: Self) {
        self.sources.merge(other.sources);
        other.secrets.iter().for_each(|(id, optional)| note(&mut self.secrets, id, *optional));
        other.ssh.iter().for_each(|(id, optional)| note(&mut self.ssh, id, *optional));
        self.has_network |= other.has_network;
        self.has_unknown |= other.has_unknown;
    }

    /// Whether something went in that has no digest.
    pub(super) fn is_incomplete(&self) -> bool {
        self.has_unknown || !self.sources.locals.is_empty()
    }
}

/// The agent that an id names; no id is that of the usual one.
fn agent(id: &str) -> &str {
    if id.is_empty() { "default" } else { id }
}

/// Notes something that a step asked for. It is optional if all can do without it.
fn note(used: &mut BTreeMap<String, bool>, id: &str, optional: bool) {
    let known = used.entry(id.to_owned()).or_insert(optional);
    *known &= optional;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_one_step_cannot_do_without_is_not_optional() {
        let exec = |optional| pb::ExecOp {
            network: pb::NetMode::None.into(),
            secretenv: vec![pb::SecretEnv { id: "s".into(), name: "S".into(), optional }],
            ..pb::ExecOp::default()
        };
        let mut capture = Capture::default();
        capture.add_exec(&exec(true));
        assert_eq!(capture.secrets, BTreeMap::from([("s".to_owned(), true)]));
        capture.add_exec(&exec(false));
        assert_eq!(capture.secrets, BTreeMap::from([("s".to_owned(), false)]));
        assert!(!capture.has_network);
        capture.add_exec(&pb::ExecOp::default());
        assert!(capture.has_network);
    }
}
