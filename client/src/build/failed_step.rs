//! The step that failed, as a container in which the user can look around.
//!
//! A daemon's error has the op, and names for the files of each of its mounts as the step left them
//! (`errdefs.Solve`). Where it has no names, since the step did not come to run, the files are those
//! that it would have started from: results of the definition that was built.

use kiln_proto::errdefs::solve::Subject;
use kiln_proto::errdefs::{Solve, Vertex};
use kiln_proto::gateway::{InitMessage, NewContainerRequest};
use kiln_proto::{detail, pb};
use prost::Message;
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use tonic::Status;

/// Where the files are that a step could not take.
const SOURCE: &str = "/run/source";

/// A step to look into.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct FailedStep {
    pub(super) container: NewContainerRequest,
    /// What runs in the container, yet without its arguments.
    pub(super) process: InitMessage,
    /// The program that interprets the step's own command.
    pub(super) shell: Option<String>,
    /// The files that a step could not take, if they are shown.
    pub(super) source: Option<&'static str>,
    /// Results that have to be made for mounts, by the mount's position.
    pub(super) missing: Vec<(usize, pb::Definition)>,
}

impl FailedStep {
    /// The step that an error is about, if it is one that a container can stand for.
    pub(super) fn of(status: &Status, definitions: &[pb::Definition]) -> Option<Self> {
        let solve: Solve = detail::find(status)?;
        let vertex: Option<Vertex> = detail::find(status);
        let digest = vertex.map(|vertex| vertex.digest).unwrap_or_default();
        let found = definitions.iter().find_map(|all| Some((find(all, &digest)?, all)));
        let (op, definition) = match (solve.op.clone(), found) {
            (Some(op), found) => (op, found.map(|(_, definition)| definition)),
            (None, found) => found.map(|(op, definition)| (op, Some(definition)))?,
        };
        let files = Files { inputs: &op.inputs, definition };
        let mut step = match op.op.clone()? {
            pb::op::Op::Exec(exec) => of_process(exec, &solve, &files),
            pb::op::Op::File(file) => of_files(&file, &solve, &files),
            _ => return None,
        };
        step.container.platform = op.platform;
        Some(step)
    }

    /// The position of the root among the mounts.
    pub(super) fn root(&self) -> Option<usize> {
        self.container.mounts.iter().position(|mount| mount.dest == "/")
    }
}

/// The files that a step takes, made anew if need be.
struct Files<'a> {
    inputs: &'a [pb::Input],
    definition: Option<&'a pb::Definition>,
}

impl Files<'_> {
    /// The definition of the input of that number.
    fn input(&self, input: i64) -> Option<pb::Definition> {
        let input = self.inputs.get(usize::try_from(input).ok()?)?.clone();
        let mut definition = self.definition?.clone();
        let last = pb::Op { inputs: vec![input], ..pb::Op::default() };
        definition.def.pop();
        definition.def.push(last.encode_to_vec().into());
        Some(definition)
    }
}

/// The op of that digest.
fn find(definition: &pb::Definition, digest: &str) -> Option<pb::Op> {
    let is_it = |name: &str| {
        // BuildKit names steps that are to run without cache anew.
        let uncached = || hash(format!("{name}-ignorecache").as_bytes());
        name == digest || uncached() == digest
    };
    definition.def.iter().find(|op| is_it(&hash(op))).and_then(|op| pb::Op::decode(&**op).ok())
}

fn hash(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

fn of_process(exec: pb::ExecOp, solve: &Solve, files: &Files<'_>) -> FailedStep {
    let mut missing = Vec::new();
    // A step that did not come to run has left nothing.
    let is_known = solve.mount_ids.len() == exec.mounts.len();
    let mounts = exec.mounts.iter().enumerate().map(|(position, mount)| {
        if !is_known {
            missing.extend(files.input(mount.input).map(|definition| (position, definition)));
        }
        let result_id = if is_known { solve.mount_ids[position].clone() } else { String::new() };
        pb::Mount { result_id, ..mount.clone() }
    });
    let mounts = mounts.collect();
    let mut meta = exec.meta.clone().unwrap_or_default();
    let shell = interpreter(&meta.args);
    meta.args.clear();
    // Daemons give these to steps only.
    meta.env.extend(proxies(&meta.proxy_env.take().unwrap_or_default()));
    FailedStep {
        container: NewContainerRequest {
            mounts,
            network: exec.network,
            extra_hosts: meta.extra_hosts.clone(),
            hostname: meta.hostname.clone(),
            ..NewContainerRequest::default()
        },
        process: InitMessage {
            meta: Some(meta),
            security: exec.security,
            secretenv: exec.secretenv,
            ..InitMessage::default()
        },
        shell,
        source: None,
        missing,
    }
}

/// A step that changes files: a container on what it changes, beside it what it could not take.
fn of_files(file: &pb::FileOp, solve: &Solve, files: &Files<'_>) -> FailedStep {
    let left = match &solve.subject {
        Some(Subject::File(action)) => usize::try_from(action.index)
            .ok()
            .and_then(|index| solve.mount_ids.get(index))
            .filter(|id| !id.is_empty()),
        _ => None,
    };
    let mut root = pb::Mount { dest: "/".to_owned(), ..pb::Mount::default() };
    let mut missing = Vec::new();
    match left {
        Some(id) => root.result_id.clone_from(id),
        None => {
            let base = file.actions.first().and_then(|action| files.input(action.input));
            missing.extend(base.map(|base| (0, base)));
        }
    }
    let mut mounts = vec![root];
    let refused = match &solve.subject {
        Some(Subject::Cache(_)) => solve.input_ids.first().filter(|id| !id.is_empty()),
        _ => None,
    };
    mounts.extend(refused.map(|id| pb::Mount {
        dest: SOURCE.to_owned(),
        result_id: id.clone(),
        readonly: true,
        ..pb::Mount::default()
    }));
    let source = (mounts.len() > 1).then_some(SOURCE);
    let meta = pb::Meta { cwd: "/".to_owned(), ..pb::Meta::default() };
    FailedStep {
        container: NewContainerRequest { mounts, ..NewContainerRequest::default() },
        process: InitMessage { meta: Some(meta), ..InitMessage::default() },
        shell: None,
        source,
        missing,
    }
}

/// The shell of `/bin/bash -o pipefail -c 'make'` and the like.
fn interpreter(args: &[String]) -> Option<String> {
    let (program, options) = args.split_first()?;
    let name = program.rsplit('/').next().unwrap_or_default();
    let is_command = options.iter().take(options.len().saturating_sub(1)).any(|arg| arg == "-c");
    (is_command && name.ends_with("sh")).then(|| program.clone())
}

fn proxies(proxy: &pb::ProxyEnv) -> Vec<String> {
    let all: HashMap<&str, &String> = HashMap::from([
        ("HTTP_PROXY", &proxy.http_proxy),
        ("HTTPS_PROXY", &proxy.https_proxy),
        ("FTP_PROXY", &proxy.ftp_proxy),
        ("NO_PROXY", &proxy.no_proxy),
        ("ALL_PROXY", &proxy.all_proxy),
    ]);
    let set = all.into_iter().filter(|(_, value)| !value.is_empty());
    set.flat_map(|(name, value)| {
        [format!("{name}={value}"), format!("{}={value}", name.to_lowercase())]
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use kiln_proto::errdefs::{ContentCache, FileAction};
    use tonic::Code;

    fn mount(dest: &str, input: i64) -> pb::Mount {
        pb::Mount { dest: dest.to_owned(), input, ..pb::Mount::default() }
    }

    fn args(args: &[&str]) -> Vec<String> {
        args.iter().map(|arg| (*arg).to_owned()).collect()
    }

    fn op(op: pb::op::Op, inputs: &[&str]) -> pb::Op {
        let input = |digest: &&str| pb::Input { digest: (*digest).to_owned(), index: 0 };
        let inputs = inputs.iter().map(input).collect();
        pb::Op { op: Some(op), inputs, ..pb::Op::default() }
    }

    fn exec() -> pb::Op {
        let meta = pb::Meta { args: args(&["/bin/bash", "-c", "make"]), ..pb::Meta::default() };
        let mounts = vec![mount("/", 0), mount("/src", 1)];
        let exec = pb::ExecOp { meta: Some(meta), mounts, ..pb::ExecOp::default() };
        op(pb::op::Op::Exec(exec), &["sha256:base", "sha256:files"])
    }

    fn definition(op: &pb::Op) -> pb::Definition {
        let def = vec![op.encode_to_vec().into(), pb::Op::default().encode_to_vec().into()];
        pb::Definition { def, ..pb::Definition::default() }
    }

    fn status(op: &pb::Op, solve: &Solve) -> Status {
        let digest = hash(&op.encode_to_vec());
        let details = vec![detail::pack(&Vertex { digest }), detail::pack(solve)];
        detail::status(Code::Unknown, "failed", details)
    }

    fn last_input(definition: &pb::Definition) -> String {
        let last = pb::Op::decode(&**definition.def.last().unwrap()).unwrap();
        last.inputs[0].digest.clone()
    }

    #[test]
    fn a_process_has_its_mounts_as_they_were_left() {
        let solve = Solve { mount_ids: args(&["root", "src"]), ..Solve::default() };
        let step = FailedStep::of(&status(&exec(), &solve), &[definition(&exec())]).unwrap();
        let ids: Vec<_> = step.container.mounts.iter().map(|mount| &*mount.result_id).collect();
        assert_eq!((ids, step.root()), (vec!["root", "src"], Some(0)));
        assert_eq!(step.shell.as_deref(), Some("/bin/bash"));
        assert_eq!(step.missing, []);
    }

    #[test]
    fn a_process_that_did_not_run_has_what_it_would_have_started_from() {
        let cause = Some(Subject::Cache(ContentCache { index: 1 }));
        let solve = Solve { subject: cause, input_ids: args(&["files"]), ..Solve::default() };
        let step = FailedStep::of(&status(&exec(), &solve), &[definition(&exec())]).unwrap();
        let missing: Vec<_> =
            step.missing.iter().map(|(position, made)| (*position, last_input(made))).collect();
        assert_eq!(missing, [(0, "sha256:base".to_owned()), (1, "sha256:files".to_owned())]);
    }

    #[test]
    fn a_step_without_cache_is_found_by_the_name_that_buildkit_gives_it() {
        let digest = hash(format!("{}-ignorecache", hash(&exec().encode_to_vec())).as_bytes());
        assert_eq!(find(&definition(&exec()), &digest), Some(exec()));
        assert_eq!(find(&definition(&exec()), "sha256:0"), None);
    }

    #[test]
    fn a_copy_is_looked_into_at_what_it_copies_to_and_from() {
        let action = pb::FileAction { input: 0, secondary_input: 1, ..pb::FileAction::default() };
        let file = pb::FileOp { actions: vec![action] };
        let op = op(pb::op::Op::File(file), &["sha256:base", "sha256:context"]);
        let cause = Some(Subject::Cache(ContentCache { index: 1 }));
        let solve = Solve { subject: cause, input_ids: args(&["context"]), ..Solve::default() };
        let step = FailedStep::of(&status(&op, &solve), &[definition(&op)]).unwrap();
        assert_eq!(last_input(&step.missing[0].1), "sha256:base");
        assert_eq!((step.source, &*step.container.mounts[1].result_id), (Some(SOURCE), "context"));

        let cause = Some(Subject::File(FileAction { index: 0 }));
        let solve = Solve { subject: cause, mount_ids: args(&["left"]), ..Solve::default() };
        let step = FailedStep::of(&status(&op, &solve), &[]);
        assert_eq!(step, None, "neither the error nor a definition has the op");
        let step = FailedStep::of(&status(&op, &solve), &[definition(&op)]).unwrap();
        assert_eq!(step.container.mounts[0].result_id, "left");
        assert_eq!((step.missing, step.source), (Vec::new(), None));
    }

    #[test]
    fn an_error_that_is_not_of_a_step_has_nothing_to_look_into() {
        assert_eq!(FailedStep::of(&Status::unknown("no such Dockerfile"), &[]), None);
    }

    #[test]
    fn the_shell_is_the_one_that_interprets_the_command() {
        for (command, shell) in [
            (&["/bin/sh", "-c", "false"][..], Some("/bin/sh")),
            (&["/bin/bash", "-o", "pipefail", "-c", "a | b"], Some("/bin/bash")),
            (&["ash", "-c", "-c"], Some("ash")),
            (&["python3", "-c", "exit(1)"], None),
            (&["/bin/sh", "-c"], None),
            (&["/app/sh"], None),
            (&[], None),
        ] {
            assert_eq!(interpreter(&args(command)).as_deref(), shell, "{command:?}");
        }
    }
}
