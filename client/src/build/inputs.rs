//! Where a build's files come from: contexts and the Dockerfile.

use crate::args::context::{self, Context, NamedContext, NamedSource};
use crate::args::invalid::Invalid;
use crate::paths;
use crate::session::{Body, Layout, Stores, URL_PREFIX};
use anyhow::{Context as _, Result, bail};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::io::Cursor;
use std::path::{Path, PathBuf};
use tempfile::TempDir;
use tokio::io::AsyncReadExt;

/// The file name that is looked for where none is given.
const DOCKERFILE: &str = "Dockerfile";
/// How much of standard input shows whether it is an archive.
const PEEK: u64 = 1024;

/// What the frontend is told about a build's files, and what the session serves of them.
#[derive(Debug, Default)]
pub(super) struct Inputs {
    /// The frontend's attributes.
    pub(super) attributes: BTreeMap<String, String>,
    /// Directories to serve.
    pub(super) directories: BTreeMap<String, PathBuf>,
    /// Image layouts to serve.
    pub(super) stores: Stores,
    /// An archive on standard input to serve.
    pub(super) upload: Option<(String, Body)>,
    /// The same for each build of one directory.
    pub(super) shared_key: String,
    /// Directories that are removed when the build is over.
    pub(super) temporary: Vec<TempDir>,
    /// What the frontend must understand.
    capabilities: BTreeSet<&'static str>,
}

impl Inputs {
    /// Finds out what a command line's context and Dockerfile are.
    pub(super) async fn load(
        context: &str,
        dockerfile: Option<&str>,
        named: &[NamedContext],
    ) -> Result<Self> {
        let dockerfile = dockerfile.filter(|file| !file.is_empty());
        if dockerfile.is_some_and(|f| f.starts_with("http://") || f.starts_with("https://")) {
            return Err(Invalid::Unsupported("a Dockerfile at a URL".to_owned())).context("--file");
        }
        let mut inputs = Self::default();
        let node = paths::node_id();
        let context =
            Context::parse(context, |path| Path::new(path).is_dir()).context("build context")?;
        match context {
            Context::Stdin => inputs.load_stdin(dockerfile).await?,
            Context::Directory(path) => {
                inputs.shared_key = shared_key(&path, &node);
                inputs.directories.insert("context".to_owned(), path.clone());
                match dockerfile {
                    Some("-") => inputs.set_dockerfile(&read_stdin().await?)?,
                    Some(file) => inputs.set_dockerfile_path(Path::new(file))?,
                    None => inputs.set_dockerfile_path(&path.join(DOCKERFILE))?,
                }
            }
            Context::Remote(url) => inputs.load_remote(url, dockerfile).await?,
        }
        for context in named {
            inputs.add_named(context, &node)?;
        }
        if !inputs.capabilities.is_empty() {
            let list: Vec<_> = inputs.capabilities.iter().copied().collect();
            inputs.set("frontend.caps", list.join(","));
        }
        Ok(inputs)
    }

    fn set(&mut self, key: &str, value: impl Into<String>) {
        self.attributes.insert(key.to_owned(), value.into());
    }

    async fn load_remote(&mut self, url: String, dockerfile: Option<&str>) -> Result<()> {
        if context::has_git_query(&url) {
            self.capabilities.insert("moby.buildkit.frontend.gitquerystring");
        }
        self.set("context", url);
        match dockerfile {
            Some("-") => self.set_dockerfile(&read_stdin().await?)?,
            // A path that is not of this machine is one in the context.
            Some(file) if Path::new(file).is_absolute() => {
                self.set("dockerfilekey", "dockerfile");
                self.set_dockerfile_path(Path::new(file))?;
            }
            Some(file) => self.set("filename", file),
            None => self.set("filename", DOCKERFILE),
        }
        Ok(())
    }

    /// Standard input is a context if it is an archive, or else a Dockerfile.
    async fn load_stdin(&mut self, dockerfile: Option<&str>) -> Result<()> {
        if dockerfile == Some("-") {
            bail!("standard input cannot be both the context and the Dockerfile");
        }
        let mut head = Vec::new();
        tokio::io::stdin().take(PEEK).read_to_end(&mut head).await.context("standard input")?;
        if head.is_empty() {
            bail!("standard input is empty: expected an archive or a Dockerfile");
        }
        if is_archive(&head) {
            let id = paths::random_id(16);
            self.set("context", format!("{URL_PREFIX}{id}"));
            self.set("filename", dockerfile.unwrap_or(DOCKERFILE));
            let body = Body::new(Cursor::new(head).chain(tokio::io::stdin()));
            self.upload = Some((id, body));
            return Ok(());
        }
        if dockerfile.is_some() {
            bail!("standard input is no archive, and a Dockerfile is given by --file as well");
        }
        let mut text = head;
        text.extend(read_stdin().await?);
        let empty = tempfile::tempdir().context("an empty context")?;
        self.directories.insert("context".to_owned(), empty.path().to_owned());
        self.temporary.push(empty);
        self.set_dockerfile(&text)
    }

    /// A Dockerfile that is not a file of this machine.
    fn set_dockerfile(&mut self, text: &[u8]) -> Result<()> {
        let directory = tempfile::tempdir().context("a directory for the Dockerfile")?;
        std::fs::write(directory.path().join(DOCKERFILE), text).context("the Dockerfile")?;
        self.directories.insert("dockerfile".to_owned(), directory.path().to_owned());
        self.temporary.push(directory);
        self.set("dockerfilekey", "dockerfile");
        self.set("filename", DOCKERFILE);
        Ok(())
    }

    fn set_dockerfile_path(&mut self, path: &Path) -> Result<()> {
        let name = path.file_name().and_then(|name| name.to_str());
        let Some(name) = name else {
            return Err(Invalid::not(&path.to_string_lossy(), "the path of a file"))
                .context("--file");
        };
        let directory = match path.parent() {
            Some(parent) if parent != Path::new("") => parent,
            _ => Path::new("."),
        };
        if !directory.is_dir() {
            bail!("--file {}: there is no directory {}", path.display(), directory.display());
        }
        self.set("filename", actual_name(directory, name));
        self.directories.insert("dockerfile".to_owned(), directory.to_owned());
        Ok(())
    }

    fn add_named(&mut self, context: &NamedContext, node: &str) -> Result<()> {
        self.capabilities.insert("moby.buildkit.frontend.contexts+forward");
        let key = format!("context:{}", context.name);
        match &context.source {
            NamedSource::Remote(url) => {
                if context::has_git_query(url) {
                    self.capabilities.insert("moby.buildkit.frontend.gitquerystring+forward");
                }
                self.set(&key, url);
            }
            NamedSource::Layout(layout) => {
                let store = Layout::new(&layout.path);
                let digest = match &layout.digest {
                    Some(digest) => digest.clone(),
                    None => store
                        .resolve(layout.tag.as_deref().unwrap_or("latest"), true)
                        .with_context(|| format!("--build-context {}", context.name))?,
                };
                let id = paths::random_id(16);
                let tag = layout.tag.as_ref().map_or_else(String::new, |tag| format!(":{tag}"));
                self.set(&key, format!("oci-layout://{id}{tag}@{digest}"));
                self.stores.insert(format!("oci:{id}"), store);
            }
            NamedSource::Directory(path) => {
                if !path.is_dir() {
                    bail!(
                        "--build-context {}: {} is not a directory",
                        context.name,
                        path.display()
                    );
                }
                let local = match context.name.as_str() {
                    name @ ("context" | "dockerfile") => format!("_{name}"),
                    name => name.to_owned(),
                };
                self.set(&key, format!("local:{local}"));
                self.set(&format!("sharedkey:localdir:{}", context.name), shared_key(path, node));
                self.directories.insert(local, path.clone());
            }
        }
        Ok(())
    }
}

async fn read_stdin() -> Result<Vec<u8>> {
    let mut text = Vec::new();
    tokio::io::stdin().read_to_end(&mut text).await.context("standard input")?;
    Ok(text)
}

/// Names a directory of this machine: readable, but no two directories have the same.
fn shared_key(path: &Path, node: &str) -> String {
    let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let hash = hex::encode(Sha256::digest(path.as_os_str().as_encoded_bytes()));
    let name: String = path
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .chars()
        .filter(char::is_ascii_graphic)
        .collect();
    format!("{name}-{}:{node}", &hash[..12])
}

/// `dockerfile` stands in for a `Dockerfile` that is not there.
fn actual_name<'a>(directory: &Path, name: &'a str) -> &'a str {
    let is_there = |name: &str| directory.join(name).symlink_metadata().is_ok();
    if name == DOCKERFILE && !is_there(name) && is_there("dockerfile") {
        "dockerfile"
    } else {
        name
    }
}

/// Whether data begins like an archive, compressed or not.
fn is_archive(head: &[u8]) -> bool {
    const MAGIC: [&[u8]; 4] = [b"BZh", b"\x1f\x8b\x08", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd"];
    if MAGIC.iter().any(|magic| head.starts_with(magic)) {
        return true;
    }
    let Some(block) = head.first_chunk::<512>().filter(|block| block.iter().any(|&b| b != 0))
    else {
        return false;
    };
    let header = tar::Header::from_byte_slice(block);
    // The checksum counts its own field as spaces.
    let sum =
        |range: std::ops::Range<usize>| block[range].iter().map(|&b| u32::from(b)).sum::<u32>();
    header.cksum().is_ok_and(|expected| expected == sum(0..148) + 8 * 32 + sum(156..512))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_is_known_by_its_beginning() {
        let mut archive = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_size(0);
        header.set_cksum();
        archive.append_data(&mut header, "Dockerfile", &b""[..]).unwrap();
        let archive = archive.into_inner().unwrap();
        assert!(is_archive(&archive));
        assert!(is_archive(b"\x1f\x8b\x08more"));
        for head in [&b""[..], b"FROM scratch\n", &[0; 1024], &archive[..100], &[b'x'; 1024]] {
            assert!(!is_archive(head));
        }
    }

    #[tokio::test]
    async fn a_directory_has_its_dockerfile_in_any_spelling() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("dockerfile"), "").unwrap();
        let context = directory.path().to_str().unwrap();
        let inputs = Inputs::load(context, None, &[]).await.unwrap();
        assert_eq!(inputs.attributes["filename"], "dockerfile");
        assert!(inputs.directories.contains_key("context"));
        assert!(inputs.directories.contains_key("dockerfile"));

        let file = directory.path().join("x/app.Dockerfile");
        let error = Inputs::load(context, file.to_str(), &[]).await.unwrap_err();
        assert!(error.to_string().contains("there is no directory"), "{error}");
    }

    #[tokio::test]
    async fn named_contexts_tell_the_frontend_what_they_are() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().to_str().unwrap();
        let named: Vec<_> = ["a=docker-image://b", &format!("context={path}")]
            .iter()
            .map(|text| context::parse_named(text).unwrap())
            .collect();
        let inputs = Inputs::load("https://h/r.git?ref=x", Some("f"), &named).await.unwrap();
        assert_eq!(inputs.attributes["filename"], "f");
        assert_eq!(inputs.attributes["context"], "https://h/r.git?ref=x");
        assert_eq!(inputs.attributes["context:a"], "docker-image://b");
        assert_eq!(inputs.attributes["context:context"], "local:_context");
        assert_eq!(
            inputs.attributes["frontend.caps"],
            "moby.buildkit.frontend.contexts+forward,moby.buildkit.frontend.gitquerystring"
        );
        assert!(inputs.directories.contains_key("_context"));
    }
}
