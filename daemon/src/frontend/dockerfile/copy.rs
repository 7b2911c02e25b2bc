//! COPY and ADD.

use anyhow::bail;
use indexmap::IndexMap;
use kiln_cache::Digest;
use kiln_dockerfile::expand::Expander;
use kiln_dockerfile::instruction::{Copy, Instruction, Transfer};
use kiln_dockerfile::lint;
use kiln_proto::pattern::Pattern;
use kiln_proto::pb;
use kiln_proto::pb::file_action::Action;

use super::evaluate::Evaluation;
use super::graph::{Inputs, NONE, inline_file, owner};
use super::paths::{destination, has_wildcards};
use super::remote_source::RemoteSource;
use super::stage::Stage;
use crate::graph::{Edge, Vertex, VertexMeta};
use crate::ops::mode::ModeSpec;
use crate::ops::path::clean;

/// What is copied from where to where, with its variables replaced.
pub(super) struct Plan {
    keyword: &'static str,
    /// The files that the sources are paths of.
    from: Option<Edge>,
    pub(super) sources: Vec<String>,
    /// Sources that are addresses, by what is written; those are no paths.
    pub(super) remotes: IndexMap<String, Remote>,
    /// Names and contents of files in the Dockerfile.
    inline: Vec<(String, String)>,
    destination: String,
    chown: Option<String>,
    chmod: Option<String>,
    mode: Mode,
    exclude: Vec<String>,
    link: bool,
    parents: bool,
    pub(super) unpack: bool,
}

/// The files that an address stands for.
pub(super) struct Remote {
    pub(super) files: Edge,
    /// What of them is copied.
    pub(super) path: String,
    pub(super) unpack: bool,
}

/// `--chmod`
enum Mode {
    Keep,
    Set(i32),
    Change(String),
}

impl Evaluation<'_> {
    pub(super) fn copy(
        &mut self,
        stage: &mut Stage,
        instruction: &Instruction,
        copy: &Copy,
    ) -> anyhow::Result<()> {
        let mut plan = self.transfer(stage, instruction, &copy.transfer, "COPY")?;
        for source in &plan.sources {
            if let Some(remote) = RemoteSource::parse(source)? {
                bail!("source can't be {} for COPY", remote.kind());
            }
        }
        plan.parents = copy.parents;
        if let Some(from) = &copy.from {
            let reference = self.planned.plan.copy_source(from)?;
            let (edge, local) = self.files_of(reference)?;
            for source in plan.paths() {
                self.mark_used(local.as_deref(), source);
            }
            plan.from = edge;
        } else {
            self.use_context(instruction, &mut plan);
        }
        self.transfer_step(stage, instruction, &plan);
        Ok(())
    }

    pub(super) fn use_context(&mut self, instruction: &Instruction, plan: &mut Plan) {
        for source in plan.paths() {
            self.used.context.add(source);
            self.check_ignored(instruction, source);
        }
        plan.from.clone_from(&self.sources.context);
    }

    /// Reports a source that the ignore file keeps out. With exceptions that cannot be told.
    fn check_ignored(&mut self, instruction: &Instruction, source: &str) {
        if self.ignored.has_exceptions() {
            return;
        }
        let path = clean(source);
        let path = path.trim_start_matches('/');
        if !path.is_empty() {
            if self.ignored.matches(path) {
                lint::ignored_file(self.linter, instruction, path);
            }
            return;
        }
        // The root itself is always there; it is kept out if everything in it is.
        let all = |pattern: &Pattern| matches!(pattern.text(), "*" | "**" | "**/*");
        if self.ignored.patterns().iter().any(all) {
            let root = if source.starts_with('/') { "/" } else { "." };
            lint::ignored_file(self.linter, instruction, root);
        }
    }

    /// Replaces variables in what COPY and ADD have in common.
    pub(super) fn transfer(
        &mut self,
        stage: &Stage,
        instruction: &Instruction,
        transfer: &Transfer,
        keyword: &'static str,
    ) -> anyhow::Result<Plan> {
        let mut option = |word: &Option<String>| match word {
            Some(word) => {
                let value = self.expand(stage, instruction, word)?;
                anyhow::Ok(Some(value).filter(|value| !value.is_empty()))
            }
            None => Ok(None),
        };
        let (chown, chmod) = (option(&transfer.chown)?, option(&transfer.chmod)?);
        let mut inline = Vec::new();
        for file in &transfer.files {
            let mut content = file.content.clone();
            if file.expand {
                let expansion = Expander::new('\\').ignore_quotes().expand(&content, &stage.env)?;
                self.check_variables(stage, instruction, &expansion.unset);
                content = expansion.text;
            }
            inline.push((file.name.clone(), content));
        }
        Ok(Plan {
            keyword,
            from: None,
            remotes: IndexMap::new(),
            sources: self.expand_all(stage, instruction, &transfer.sources)?,
            inline,
            destination: self.expand(stage, instruction, &transfer.destination)?,
            mode: mode(chmod.as_deref())?,
            chown,
            chmod,
            exclude: transfer.exclude.clone(),
            link: transfer.link,
            parents: false,
            unpack: false,
        })
    }

    /// Adds the step that copies.
    pub(super) fn transfer_step(
        &mut self,
        stage: &mut Stage,
        instruction: &Instruction,
        plan: &Plan,
    ) {
        let shown = self.shown(stage, instruction);
        let name = stage.names.next(&shown, &stage.env);
        let meta = VertexMeta {
            ignore_cache: stage.ignore_cache,
            ..Stage::meta(&self.conversion.loaded.file, instruction, name.clone())
        };
        // A mode for everything copied would also be one for the directories made on the way.
        let link = plan.link && plan.chmod.is_none();
        let base = stage.root.clone().filter(|_| !link);
        let (op, inputs) = plan.file_op(base.as_ref(), stage);
        let platform = Some(stage.platform.to_pb());
        if link {
            let id = Digest::of(format!("link\0{name}\0{}", instruction.location)).to_string();
            let group = |weak| Some(pb::ProgressGroup { id: id.clone(), name: name.clone(), weak });
            let copy_meta = VertexMeta { progress_group: group(true), ..meta.clone() };
            let copied = Vertex::new(op, inputs, platform, copy_meta).output(0);
            stage.root = Some(match stage.root.take() {
                None => copied,
                Some(base) => {
                    let op = pb::op::Op::Merge(pb::MergeOp {
                        inputs: (0..2).map(|input| pb::MergeInput { input }).collect(),
                    });
                    let merge_meta = VertexMeta {
                        name: stage.names.current(&format!("LINK {shown}"), &stage.env),
                        progress_group: group(false),
                        ..meta
                    };
                    Vertex::new(op, vec![base, copied], None, merge_meta).output(0)
                }
            });
        } else {
            stage.root = Some(Vertex::new(op, inputs, platform, meta).output(0));
        }
        self.commit(stage, plan.history(), true);
    }
}

impl Plan {
    /// The sources that are paths.
    fn paths(&self) -> impl Iterator<Item = &String> {
        self.sources.iter().filter(|source| !self.remotes.contains_key(*source))
    }

    fn file_op(&self, base: Option<&Edge>, stage: &Stage) -> (pb::op::Op, Vec<Edge>) {
        let mut inputs = Inputs::default();
        let base = inputs.index(base);
        let dest = destination(&stage.workdir, &self.destination);
        let mut copies = Vec::new();
        for source in &self.sources {
            copies.push(match self.remotes.get(source) {
                Some(remote) => {
                    let copy = pb::FileActionCopy {
                        src: remote.path.clone(),
                        attempt_unpack_docker_compatibility: remote.unpack,
                        ..self.common(&dest, base)
                    };
                    (inputs.index(Some(&remote.files)), copy)
                }
                None => (inputs.index(self.from.as_ref()), self.copy(source, &dest, base)),
            });
        }
        for (name, content) in &self.inline {
            let file = inline_file(name, 0o644, content.clone(), &stage.platform);
            let copy = pb::FileActionCopy { src: format!("/{name}"), ..self.common(&dest, base) };
            copies.push((inputs.index(Some(&file)), copy));
        }
        // Each action goes on from the one before it; the last one is the result.
        let (count, last) = (inputs.0.len(), copies.len().saturating_sub(1));
        let actions = copies.into_iter().enumerate().map(|(index, (secondary_input, copy))| {
            let before = index.checked_sub(1).map(|before| count + before);
            pb::FileAction {
                input: before.map_or(base, |before| i64::try_from(before).unwrap_or(NONE)),
                secondary_input,
                output: if index == last { 0 } else { NONE },
                action: Some(Action::Copy(copy)),
            }
        });
        let op = pb::op::Op::File(pb::FileOp { actions: actions.collect() });
        (op, inputs.0)
    }

    fn common(&self, dest: &str, base: i64) -> pb::FileActionCopy {
        let (mode, mode_str) = match &self.mode {
            Mode::Keep => (-1, String::new()),
            Mode::Set(mode) => (*mode, String::new()),
            Mode::Change(text) => (0, text.clone()),
        };
        pb::FileActionCopy {
            dest: dest.to_owned(),
            owner: self.chown.as_deref().map(|spec| owner(spec, base)),
            mode,
            mode_str,
            create_dest_path: true,
            timestamp: -1,
            exclude_patterns: self.exclude.clone(),
            ..Default::default()
        }
    }

    fn copy(&self, source: &str, dest: &str, base: i64) -> pb::FileActionCopy {
        let (mut src, mut include, mut required) = (source, Vec::new(), Vec::new());
        if self.parents {
            // What comes before a part that is just a dot is not kept.
            let pattern;
            (src, pattern) = source.split_once("/./").unwrap_or(("/", source));
            let pattern = clean(pattern);
            include = vec![pattern.trim_start_matches('/').to_owned()];
            if !has_wildcards(src) && !has_wildcards(&pattern) {
                required = vec![clean(&format!("{src}/{pattern}"))];
            }
        }
        pb::FileActionCopy {
            src: clean(src),
            follow_symlink: true,
            dir_copy_contents: true,
            attempt_unpack_docker_compatibility: self.unpack,
            allow_wildcard: true,
            allow_empty_wildcard: true,
            include_patterns: include,
            required_paths: required,
            ..self.common(dest, base)
        }
    }

    fn history(&self) -> String {
        let mut text = self.keyword.to_owned();
        let mut word = |word: &str| {
            text.push(' ');
            text.push_str(word);
        };
        if self.parents {
            word("--parents");
        }
        if let Some(chown) = &self.chown {
            word(&format!("--chown={chown}"));
        }
        if let Some(chmod) = &self.chmod {
            word(&format!("--chmod={chmod}"));
        }
        self.sources.iter().for_each(|source| word(source));
        self.inline.iter().for_each(|(name, _)| word(&format!("<<{name}")));
        word(&self.destination);
        text + " # buildkit"
    }
}

/// Reads `--chmod`: octal digits, or a change such as `u+x`.
fn mode(text: Option<&str>) -> anyhow::Result<Mode> {
    let Some(text) = text else { return Ok(Mode::Keep) };
    let is_number = text.starts_with(|first: char| first.is_ascii_digit());
    match i32::from_str_radix(text, 8) {
        Ok(mode @ 0..=0o7777) => Ok(Mode::Set(mode)),
        Err(_) if !is_number && text.parse::<ModeSpec>().is_ok() => {
            Ok(Mode::Change(text.to_owned()))
        }
        _ => bail!(
            "invalid chmod parameter: '{text}'. it should be octal string and between 0 and \
             07777, or a change such as u=rwX,go=rX"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frontend::dockerfile::image::Image;
    use crate::image::Platform;

    fn plan(sources: &[&str]) -> Plan {
        let platform = Platform::new("linux", "amd64", "");
        Plan {
            keyword: "COPY",
            from: Some(inline_file("context", 0o644, String::new(), &platform)),
            sources: sources.iter().map(|source| (*source).to_owned()).collect(),
            remotes: IndexMap::new(),
            inline: Vec::new(),
            destination: "out/".to_owned(),
            chown: None,
            chmod: None,
            mode: Mode::Keep,
            exclude: Vec::new(),
            link: false,
            parents: false,
            unpack: false,
        }
    }

    fn actions(plan: &Plan) -> (Vec<pb::FileAction>, usize) {
        let platform = Platform::new("linux", "amd64", "");
        let base = inline_file("base", 0o644, String::new(), &platform);
        let stage = Stage::new(Image::empty(&platform), platform);
        let (op, inputs) = plan.file_op(Some(&base), &stage);
        let pb::op::Op::File(op) = op else { panic!("not a file op") };
        (op.actions, inputs.len())
    }

    #[test]
    fn sources_are_copied_one_after_the_other_onto_the_base() {
        let mut plan = plan(&["a", "b"]);
        plan.inline.push(("c".to_owned(), "text".to_owned()));
        let (actions, inputs) = actions(&plan);
        assert_eq!(inputs, 3);
        let shape: Vec<_> =
            actions.iter().map(|a| (a.input, a.secondary_input, a.output)).collect();
        assert_eq!(shape, [(0, 1, -1), (3, 1, -1), (4, 2, 0)]);
        for action in actions {
            let Some(Action::Copy(copy)) = action.action else { panic!("not a copy") };
            assert_eq!((&*copy.dest, copy.mode), ("/out/", -1));
        }
    }

    #[test]
    fn parents_are_kept_from_the_pivot_on() {
        let mut plan = plan(&["a/./b/c.txt", "x/*.txt"]);
        plan.parents = true;
        let copies: Vec<_> = plan.sources.iter().map(|s| plan.copy(s, "/out/", 0)).collect();
        assert_eq!((&*copies[0].src, &*copies[0].include_patterns[0]), ("/a", "b/c.txt"));
        assert_eq!(copies[0].required_paths, ["/a/b/c.txt"]);
        assert_eq!((&*copies[1].src, &*copies[1].include_patterns[0]), ("/", "x/*.txt"));
        assert_eq!(copies[1].required_paths, [] as [&str; 0]);
    }

    #[test]
    fn the_history_tells_flags_and_sources() {
        let mut plan = plan(&["a"]);
        (plan.chown, plan.chmod) = (Some("1:2".to_owned()), Some("644".to_owned()));
        plan.inline.push(("EOF".to_owned(), String::new()));
        let expected = "COPY --chown=1:2 --chmod=644 a <<EOF out/ # buildkit";
        assert_eq!(plan.history(), expected);
    }

    #[test]
    fn a_mode_is_octal_or_a_change() {
        assert!(matches!(mode(None), Ok(Mode::Keep)));
        assert!(matches!(mode(Some("0755")), Ok(Mode::Set(0o755))));
        assert!(matches!(mode(Some("u+x")), Ok(Mode::Change(_))));
        for invalid in ["10000", "888", "64a", "u?x"] {
            assert!(mode(Some(invalid)).is_err(), "{invalid}");
        }
    }
}
