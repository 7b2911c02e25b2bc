//! ADD: what COPY does, and files from elsewhere.

use anyhow::{Context as _, bail};
use kiln_cache::Digest;
use kiln_dockerfile::instruction::{Add, Instruction};

use super::copy::Remote;
use super::evaluate::Evaluation;
use super::graph::named;
use super::names::StepNames;
use super::remote_source::{self, RemoteSource};
use super::stage::Stage;
use crate::ops::source::git::GitRef;

impl Evaluation<'_> {
    pub(super) fn add(
        &mut self,
        stage: &mut Stage,
        instruction: &Instruction,
        add: &Add,
    ) -> anyhow::Result<()> {
        let mut plan = self.transfer(stage, instruction, &add.transfer, "ADD")?;
        let checksum = match &add.checksum {
            Some(word) => Some(self.expand(stage, instruction, word)?).filter(|c| !c.is_empty()),
            None => None,
        };
        let mut remotes = Vec::new();
        for source in &plan.sources {
            remotes.push(RemoteSource::parse(source)?);
        }
        if checksum.is_some() {
            match remotes.as_slice() {
                [Some(_)] => {}
                [None] => bail!("checksum requires HTTP(S) or Git sources"),
                _ => bail!("checksum can't be specified for multiple sources"),
            }
        }
        // The step is the one that copies; what it copies is had under its name.
        let mut names: StepNames = stage.names.clone();
        let step = names.next(&self.shown(stage, instruction), &stage.env);
        for (text, remote) in plan.sources.iter().zip(remotes) {
            let remote = match remote {
                None => continue,
                Some(RemoteSource::Http(url)) => {
                    if let Some(checksum) = &checksum {
                        check_digest(checksum)?;
                    }
                    let file = remote_source::file_name(&url);
                    let checksum = checksum.as_deref();
                    let source = remote_source::http(&url, &file, checksum, named(&step));
                    // Files from servers stay packed unless somebody says otherwise.
                    let (files, unpack) = (source.output(0), add.unpack.unwrap_or(false));
                    Remote { files, path: format!("/{file}"), unpack }
                }
                Some(RemoteSource::Git(mut git)) => {
                    apply(&mut git, add.keep_git_dir, checksum.as_deref())?;
                    let files = remote_source::git(&git, named(&step)).output(0);
                    Remote { files, path: "/".to_owned(), unpack: false }
                }
            };
            plan.remotes.insert(text.clone(), remote);
        }
        plan.unpack = add.unpack.unwrap_or(true);
        self.use_context(instruction, &mut plan);
        self.transfer_step(stage, instruction, &plan);
        Ok(())
    }
}

/// A digest in the form that BuildKit's errors are about.
fn check_digest(text: &str) -> anyhow::Result<()> {
    let (algorithm, digits) = text.split_once(':').context("invalid checksum digest format")?;
    let length = match algorithm {
        "sha256" => 64,
        "sha384" => 96,
        "sha512" => 128,
        _ => bail!("unsupported digest algorithm"),
    };
    if digits.len() != length {
        bail!("invalid checksum digest length");
    }
    if algorithm == "sha256" {
        text.parse::<Digest>().context("invalid checksum digest format")?;
    }
    Ok(())
}

/// Adds what the flags say to what the address says. They must not disagree.
pub(super) fn apply(
    git: &mut GitRef,
    keep_git_dir: Option<bool>,
    checksum: Option<&str>,
) -> anyhow::Result<()> {
    if let (Some(flag), Some(query)) = (keep_git_dir, git.keep_git_dir)
        && flag != query
    {
        bail!("inconsistent keep-git-dir configuration");
    }
    git.keep_git_dir = git.keep_git_dir.or(keep_git_dir);
    if let (Some(flag), Some(query)) = (checksum, &git.checksum)
        && flag != query
    {
        bail!("checksum mismatch {flag:?} != {query:?}");
    }
    git.checksum = git.checksum.take().or(checksum.map(str::to_owned));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_and_addresses_must_agree() {
        let git = |query: &str| GitRef::parse(&format!("https://h/a.git{query}")).unwrap().unwrap();
        let mut plain = git("");
        apply(&mut plain, Some(true), Some("ab")).unwrap();
        assert_eq!((plain.keep_git_dir, plain.checksum.as_deref()), (Some(true), Some("ab")));
        assert!(apply(&mut git("?keep-git-dir=0"), Some(true), None).is_err());
        assert!(apply(&mut git("?checksum=ab"), None, Some("cd")).is_err());
        apply(&mut git("?checksum=ab&keep-git-dir"), Some(true), Some("ab")).unwrap();
    }

    #[test]
    fn digests_are_checked_before_anything_is_downloaded() {
        let good = format!("sha256:{}", "a".repeat(64));
        check_digest(&good).unwrap();
        for (text, error) in [
            ("abc", "invalid checksum digest format"),
            ("md5:abc", "unsupported digest algorithm"),
            ("sha256:abc", "invalid checksum digest length"),
        ] {
            assert_eq!(check_digest(text).unwrap_err().to_string(), error);
        }
        assert!(check_digest(&good.replace('a', "z")).is_err());
    }
}
