//! RUN: a process on top of what the stage has so far.

use std::borrow::Cow;

use kiln_dockerfile::instruction::{Instruction, Network, Program, Run, Security};
use kiln_proto::pb;

use super::convert::proxies;
use super::evaluate::Evaluation;
use super::graph::{NONE, inline_file};
use super::history;
use super::mounts::Mounts;
use super::names::uppercase_keyword;
use super::stage::Stage;
use crate::graph::{Vertex, VertexMeta};

/// Where a script is mounted that the Dockerfile has in a heredoc.
const SCRIPTS: &str = "/dev/pipes/";

impl Evaluation<'_> {
    pub(super) fn run_command(
        &mut self,
        stage: &mut Stage,
        instruction: &Instruction,
        run: &Run,
    ) -> anyhow::Result<()> {
        let options = self.conversion.options;
        // A process may look at anything.
        let local = stage.local.clone();
        self.mark_used(local.as_deref(), "/");

        let mut mounts = Mounts::default();
        let args = match run.program() {
            Program::Exec(words) => words,
            Program::Shell(text) => stage.with_shell(text),
            Program::Script { name, content } => {
                let script = inline_file(&name, 0o755, content, &stage.platform);
                let shown = pb::Mount {
                    dest: SCRIPTS.to_owned(),
                    output: NONE,
                    readonly: true,
                    ..Default::default()
                };
                mounts.bind(Some(script), shown);
                stage.with_shell(format!("{SCRIPTS}{name}"))
            }
        };
        self.add_mounts(stage, instruction, run, &mut mounts)?;
        if options.shm_size > 0 {
            mounts.tmpfs("/dev/shm".to_owned(), options.shm_size);
        }
        let name = self.run_name(stage, instruction, run, &mounts);

        let mut env: Vec<_> =
            stage.env.iter().map(|(name, value)| format!("{name}={value}")).collect();
        if let Some(socket) = mounts.ssh.first()
            && !stage.env.contains_key("SSH_AUTH_SOCK")
        {
            env.push(format!("SSH_AUTH_SOCK={}", socket.dest));
        }
        let meta = pb::Meta {
            args: args.clone(),
            env,
            cwd: stage.workdir.clone(),
            user: stage.image.config.user.clone(),
            proxy_env: proxies(&options.build_args),
            extra_hosts: options.extra_hosts.clone(),
            hostname: options.hostname.clone(),
            ulimit: options.ulimits.clone(),
            cgroup_parent: options.cgroup_parent.clone(),
            remove_mount_stubs_recursive: true,
            valid_exit_codes: Vec::new(),
        };
        let network = match run.network {
            Network::Default => options.network,
            Network::None => pb::NetMode::None,
            Network::Host => pb::NetMode::Host,
        };
        let security = match run.security {
            Security::Sandbox => pb::SecurityMode::Sandbox,
            Security::Insecure => pb::SecurityMode::Insecure,
        };
        let devices = run
            .devices
            .iter()
            .map(|device| pb::CdiDevice { name: device.name.clone(), optional: !device.required });
        let secretenv = std::mem::take(&mut mounts.secret_env);
        let (mounts, inputs) = mounts.into_all(stage.root.take());
        let exec = pb::ExecOp {
            meta: Some(meta),
            mounts,
            network: network.into(),
            security: security.into(),
            secretenv,
            cdi_devices: devices.collect(),
        };
        let vertex_meta = VertexMeta {
            ignore_cache: stage.ignore_cache,
            resources: options.resources.clone(),
            ..Stage::meta(&self.conversion.loaded.file, instruction, name)
        };
        let platform = Some(stage.platform.to_pb());
        let op = pb::op::Op::Exec(exec);
        stage.root = Some(Vertex::new(op, inputs.0, platform, vertex_meta).output(0));
        let text = history::run(&args, &stage.args, &stage.env);
        self.commit(stage, text, true);
        Ok(())
    }

    /// The step's name: the instruction with its variables replaced, those of secrets masked.
    fn run_name(
        &self,
        stage: &mut Stage,
        instruction: &Instruction,
        run: &Run,
        mounts: &Mounts,
    ) -> String {
        let mut text = instruction.source.clone();
        if let Some(summary) = run.summary() {
            text = format!("{text} ({summary})");
        }
        let mut env = Cow::Borrowed(&stage.env);
        for secret in &mounts.secret_env {
            env.to_mut().insert(secret.name.clone(), "****".to_owned());
        }
        let expander = self.expander.clone().keep_quotes().keep_unset();
        let shown = expander.word(&text, &*env).unwrap_or(text);
        stage.names.next(&uppercase_keyword(&shown), &stage.env)
    }
}
