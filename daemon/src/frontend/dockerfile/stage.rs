//! A stage while its instructions are evaluated.

use std::sync::Arc;

use indexmap::IndexMap;
use kiln_dockerfile::instruction::Instruction;
use kiln_dockerfile::lint::StageLint;
use kiln_proto::pb;

use super::errors::lines;
use super::image::{DEFAULT_PATH, Image};
use super::names::StepNames;
use super::outline::Needs;
use super::paths::absolute;
use crate::graph::{Edge, VertexMeta};
use crate::image::Platform;

/// A stage, as far as its instructions are evaluated.
#[derive(Clone, Debug)]
pub(super) struct Stage {
    /// Its files; `None` is scratch.
    pub(super) root: Option<Edge>,
    pub(super) image: Image,
    /// The config of the image it started from.
    pub(super) base_config: Option<Vec<u8>>,
    pub(super) platform: Platform,
    /// The variables that instructions see: the image's, and arguments declared so far.
    pub(super) env: IndexMap<String, String>,
    /// Arguments declared so far, with their values.
    pub(super) args: Vec<(String, Option<String>)>,
    /// The working directory.
    pub(super) workdir: String,
    /// Whether this stage has a CMD of its own.
    pub(super) has_cmd: bool,
    pub(super) ignore_cache: bool,
    /// The named context that the stage started from, if that is a directory.
    pub(super) local: Option<String>,
    pub(super) names: StepNames,
    pub(super) lint: StageLint,
    pub(super) needs: Needs,
}

impl Stage {
    /// A stage that starts from `image`.
    pub(super) fn new(image: Image, platform: Platform) -> Self {
        Self {
            root: None,
            image,
            base_config: None,
            platform,
            env: IndexMap::new(),
            args: Vec::new(),
            workdir: "/".to_owned(),
            has_cmd: false,
            ignore_cache: false,
            local: None,
            names: StepNames::default(),
            lint: StageLint::new(),
            needs: Needs::default(),
        }
    }

    /// A stage that starts from this one. Triggers are not inherited.
    pub(super) fn inherit(&self) -> Self {
        let (lint, needs) = (self.lint.inherit(), Needs::default());
        let mut stage = Self { has_cmd: false, lint, needs, ..self.clone() };
        stage.image.config.on_build.clear();
        stage
    }

    /// Takes over what the image's config says about how processes run.
    pub(super) fn start(&mut self) {
        let has_path = self.image.config.env_pairs().any(|(name, _)| name == "PATH");
        if !has_path && self.platform.os != "windows" {
            self.image.config.set_env("PATH", DEFAULT_PATH);
        }
        // Those that are there already move to the end: all at once, for moving one is slow.
        let mut variables = IndexMap::new();
        for (name, value) in self.image.config.env_pairs() {
            set(&mut variables, name.to_owned(), value.to_owned());
        }
        self.env.retain(|name, _| !variables.contains_key(name));
        self.env.extend(variables);
        if !self.image.config.working_dir.is_empty() {
            self.workdir = absolute("/", &self.image.config.working_dir);
        }
    }

    /// Sets a variable; it moves to the end.
    pub(super) fn set_env(&mut self, name: String, value: String) {
        set(&mut self.env, name, value);
    }

    pub(super) fn is_declared(&self, name: &str) -> bool {
        self.args.iter().any(|(declared, _)| declared == name)
    }

    /// The shell of commands in shell form.
    pub(super) fn with_shell(&self, text: String) -> Vec<String> {
        let mut command = self.image.config.shell.clone();
        if command.is_empty() {
            command = if self.image.os == "windows" {
                vec!["cmd".to_owned(), "/S".to_owned(), "/C".to_owned()]
            } else {
                vec!["/bin/sh".to_owned(), "-c".to_owned()]
            };
        }
        command.push(text);
        command
    }

    /// Meta of the step of `instruction`, called `name`.
    pub(super) fn meta(
        file: &Arc<pb::SourceInfo>,
        instruction: &Instruction,
        name: String,
    ) -> VertexMeta {
        VertexMeta {
            name,
            locations: vec![lines(file, instruction.location)],
            description: [(
                "com.docker.dockerfile.v1.command".to_owned(),
                instruction.source.clone(),
            )]
            .into(),
            ..VertexMeta::default()
        }
    }
}

fn set(variables: &mut IndexMap<String, String>, name: String, value: String) {
    variables.shift_remove(&name);
    variables.insert(name, value);
}
