//! Content digests: what some files of a snapshot are, whatever made them.
//!
//! A file counts by its path below the selected one, type, mode, owner, link target, extended
//! attributes, device number and content, never by its times. The digests are BuildKit's, so that a
//! step that copies the same files is the same to both. Those of files are kept per layer (layers never
//! change), so that hashing one more path of a known layer reads nothing twice.
//!
//! - The digest of a directory is that of its own metadata and of the names and digests of what is in
//!   it, in order.
//! - Where wildcards or patterns choose, it is that of a list: the path of each chosen file or
//!   directory and the digest of that alone.

use std::ffi::OsStr;
use std::iter::Peekable;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use kiln_cache::{Digest, FileList, FileListBuilder, Hasher};
use kiln_snapshotter::copy::Decision;
use kiln_snapshotter::view::Walk;
use kiln_snapshotter::{Entry, Follow, FsError, View};

use super::file::has_wildcards;
use super::filter::Filter;
use crate::layers::{FileDigests, FileHeader, LocalTree, TreeEntry};
use crate::solver::{Build, Selector, Snapshot};

/// A selected path does not exist.
#[derive(Debug, thiserror::Error)]
#[error("\"{0}\": not found")]
pub(crate) struct NotFound(pub(crate) String);

impl NotFound {
    /// Names a path inside a snapshot.
    pub(crate) fn at(path: &Path) -> Self {
        Self(Path::new("/").join(path).display().to_string())
    }
}

/// The digest of what `selectors` choose of `snapshot`, whose layers are fetched if need be, and which
/// files those are.
pub(crate) async fn digest(
    build: &Arc<Build>,
    snapshot: &Snapshot,
    selectors: &[Selector],
) -> anyhow::Result<(Digest, Option<FileList>)> {
    let layers = &build.daemon.layers;
    if let Snapshot::Tree(tree) = snapshot
        && let Some(known) = announced(tree, selectors)
    {
        return Ok(known);
    }
    layers.fetch(build, snapshot).await?;
    let view = layers.view(snapshot)?;
    let files = layers.file_digests(snapshot)?;
    let selectors = selectors.to_vec();
    let task = tokio::task::spawn_blocking(move || {
        let mut hashing = Hashing { view, files, list: FileListBuilder::default() };
        let digests: anyhow::Result<Vec<String>> =
            selectors.iter().map(|it| Ok(hashing.selector(it)?.to_string())).collect();
        let digest = Digest::of(digests?.join("\0"));
        hashing.files.save()?;
        anyhow::Ok((digest, hashing.list.finish()))
    });
    task.await?
}

/// The same for single files of a client's directory, of which all has been said: most COPYs name such,
/// and there can be hundreds of them.
fn announced(tree: &LocalTree, selectors: &[Selector]) -> Option<(Digest, Option<FileList>)> {
    let (mut list, mut digests) = (FileListBuilder::default(), Vec::new());
    for selector in selectors {
        let is_plain = !selector.wildcard
            && [&selector.required, &selector.include, &selector.exclude]
                .into_iter()
                .all(Vec::is_empty);
        let path = Some(selector.path.trim_start_matches('/')).filter(|_| is_plain)?;
        let known = tree.known(path).filter(|known| known.stat.go_mode().is_regular())?;
        digests.push(announced_entry(path, known, &mut list)?.to_string());
    }
    Some((Digest::of(digests.join("\0")), list.finish()))
}

/// The digest of one file or directory alone; `None` of a file that changed while it was sent.
fn announced_entry(path: &str, known: &TreeEntry, list: &mut FileListBuilder) -> Option<Digest> {
    let header = FileHeader::of_announced(&known.stat);
    let digest = match known.digest {
        None if known.stat.go_mode().is_regular() => return None,
        None => header.hasher().finish(),
        Some(digest) => digest,
    };
    list.push(path.as_bytes(), &digest, header.checksum());
    Some(digest)
}

struct Hashing {
    view: View,
    files: FileDigests,
    list: FileListBuilder,
}

impl Hashing {
    fn selector(&mut self, selector: &Selector) -> anyhow::Result<Digest> {
        for path in &selector.required {
            let found = self.view.lookup(path, Follow::Last)?;
            found.ok_or_else(|| NotFound(path.clone()))?;
        }
        let follow = if selector.follow_links { Follow::Last } else { Follow::NoLast };
        let mut filter = Filter::new(&selector.include, &selector.exclude)?;
        let path = Path::new(&selector.path);
        if !selector.wildcard && filter.is_empty() {
            return self.whole(path, follow);
        }
        let mut chosen = Chosen::default();
        if !selector.wildcard {
            let top = self.view.lookup(path, follow)?;
            if let Some(top) = existing(top, path)? {
                self.choose(&top, Path::new(""), &mut filter, &mut chosen)?;
            }
            return Ok(chosen.finish(path.file_name()));
        }
        let names: Vec<&OsStr> = path.iter().filter(|name| *name != "/").collect();
        let is_wild = |name: &&OsStr| has_wildcards(&name.to_string_lossy());
        let depth = names.len() - names.iter().position(is_wild).unwrap_or(0);
        for found in self.view.glob(path, follow)? {
            // What comes before the wildcards does not count, and may be other than it was named.
            let named: PathBuf = found.iter().skip(found.iter().count() - depth).collect();
            let top = self.view.lookup(&found, Follow::NoLast)?;
            let top = top.ok_or_else(|| NotFound::at(&found))?;
            if top.metadata().is_symlink() && follow == Follow::Last {
                // Its target is what is copied; its name is part of the result.
                let target = self.whole(&found, follow)?;
                chosen.push(&named, &target);
            } else {
                self.choose(&top, &named, &mut filter, &mut chosen)?;
            }
        }
        Ok(chosen.finish(path.file_name()))
    }

    /// What is at a path, with all that is below.
    fn whole(&mut self, path: &Path, follow: Follow) -> anyhow::Result<Digest> {
        let top = self.view.lookup(path, follow)?;
        let Some(top) = existing(top, path)? else { return Ok(Digest::of("")) };
        if !top.metadata().is_dir() {
            return self.entry(&top);
        }
        let mut dirs = vec![Directory::new(top.path(), &self.top(&top)?)];
        let tree = self.files.tree().cloned();
        for node in Below::new(&self.view, tree.as_deref(), top.path())? {
            let node = node?;
            while dirs.last().is_some_and(|dir| Some(&*dir.path) != node.path().parent()) {
                Directory::close(&mut dirs);
            }
            let digest = self.node(&node)?;
            if node.is_dir() {
                dirs.push(Directory::new(node.path(), &digest));
            } else if let (Some(dir), Some(name)) = (dirs.last_mut(), node.path().file_name()) {
                dir.add(name, &digest);
            }
        }
        loop {
            if let Some(digest) = Directory::close(&mut dirs) {
                return Ok(digest);
            }
        }
    }

    /// Adds `top`, which is known as `named`, and what of it the filter chooses.
    fn choose(
        &mut self,
        top: &Entry,
        named: &Path,
        filter: &mut Filter,
        chosen: &mut Chosen,
    ) -> anyhow::Result<()> {
        if !self.is_usual_root(top) {
            let digest = self.top(top)?;
            chosen.push(named, &digest);
        }
        if !top.metadata().is_dir() {
            return Ok(());
        }
        let tree = self.files.tree().cloned();
        let mut walk = Below::new(&self.view, tree.as_deref(), top.path())?;
        // Directories that only a match below them would bring in.
        let mut pending: Vec<Node> = Vec::new();
        while let Some(node) = walk.next() {
            let node = node?;
            let below = |node: &Node| {
                let path = node.path().strip_prefix(top.path()).unwrap_or(node.path());
                path.to_owned()
            };
            pending.retain(|dir| node.path().starts_with(dir.path()));
            let is_dir = node.is_dir();
            match filter.decide(&below(&node), is_dir) {
                Decision::Include => {
                    for node in pending.drain(..).chain([node]) {
                        let digest = self.node(&node)?;
                        chosen.push(&named.join(below(&node)), &digest);
                    }
                }
                Decision::Descend if is_dir => pending.push(node),
                Decision::Skip if is_dir => walk.skip_dir(),
                Decision::Descend | Decision::Skip => {}
            }
        }
        Ok(())
    }

    /// Whether it is a root directory of which there is nothing to say: where patterns choose,
    /// BuildKit has nothing to say of any.
    fn is_usual_root(&self, top: &Entry) -> bool {
        let metadata = top.metadata();
        let is_usual = (metadata.mode, metadata.uid, metadata.gid) == (0o755, 0, 0);
        top.path().as_os_str().is_empty() && (is_usual || self.files.tree().is_some())
    }

    /// The digest of the uppermost entry alone. The root of a client's directory is not the client's.
    fn top(&mut self, top: &Entry) -> anyhow::Result<Digest> {
        if top.path().as_os_str().is_empty() && self.files.tree().is_some() {
            return Ok(Digest::of(""));
        }
        self.entry(top)
    }

    /// The digest of one file or directory alone.
    fn node(&mut self, node: &Node<'_>) -> anyhow::Result<Digest> {
        let (path, known) = match node {
            Node::Found(entry) => return self.entry(entry),
            Node::Announced(path, known) => (*path, *known),
        };
        if let Some(digest) = announced_entry(path, known, &mut self.list) {
            return Ok(digest);
        }
        let found = self.view.lookup(path, Follow::NoLast)?;
        self.entry(&found.ok_or_else(|| NotFound::at(Path::new(path)))?)
    }

    /// The digest of one entry alone.
    fn entry(&mut self, entry: &Entry) -> anyhow::Result<Digest> {
        let at = || format!("/{}", entry.path().display());
        let header = FileHeader::of(entry)?;
        let compute = || header.digest(entry).with_context(at);
        let digest = if entry.metadata().is_file() {
            self.files.get(entry.layer(), entry.path(), compute)?
        } else {
            compute()?
        };
        self.list.push(entry.path().as_os_str().as_bytes(), &digest, header.checksum());
        Ok(digest)
    }
}

/// What was looked up at a path: of nothing, only the root may be copied.
fn existing(found: Option<Entry>, path: &Path) -> Result<Option<Entry>, NotFound> {
    match found {
        None if path != Path::new("/") => Err(NotFound::at(path)),
        found => Ok(found),
    }
}

/// A file or directory below another.
enum Node<'a> {
    Found(Entry),
    /// In a client's directory: what it is has been said, and nobody needs to look.
    Announced(&'a str, &'a TreeEntry),
}

impl Node<'_> {
    fn path(&self) -> &Path {
        match self {
            Self::Found(entry) => entry.path(),
            Self::Announced(path, _) => Path::new(path),
        }
    }

    fn is_dir(&self) -> bool {
        match self {
            Self::Found(entry) => entry.metadata().is_dir(),
            Self::Announced(_, known) => known.is_dir(),
        }
    }
}

/// All that is below a directory: each directory, and then what is in it, by name.
enum Below<'a> {
    Found(Walk),
    Announced { rest: Peekable<std::vec::IntoIter<(&'a str, &'a TreeEntry)>>, last: &'a str },
}

impl<'a> Below<'a> {
    fn new(view: &View, tree: Option<&'a LocalTree>, dir: &Path) -> Result<Self, FsError> {
        Ok(match tree {
            None => Self::Found(view.walk(dir)?),
            Some(tree) => {
                Self::Announced { rest: tree.below(dir).into_iter().peekable(), last: "" }
            }
        })
    }

    /// Leaves out what is in the directory that was returned last.
    fn skip_dir(&mut self) {
        match self {
            Self::Found(walk) => walk.skip_dir(),
            Self::Announced { rest, last } => {
                while rest.next_if(|(path, _)| Path::new(path).starts_with(*last)).is_some() {}
            }
        }
    }
}

impl<'a> Iterator for Below<'a> {
    type Item = Result<Node<'a>, FsError>;

    fn next(&mut self) -> Option<Self::Item> {
        match self {
            Self::Found(walk) => Some(walk.next()?.map(Node::Found)),
            Self::Announced { rest, last } => {
                let (path, known) = rest.next()?;
                *last = path;
                Some(Ok(Node::Announced(path, known)))
            }
        }
    }
}

/// A directory while what is in it is hashed.
struct Directory {
    path: PathBuf,
    hasher: Hasher,
}

impl Directory {
    /// `own` is the digest of the directory's metadata.
    fn new(path: &Path, own: &Digest) -> Self {
        let mut dir = Self { path: path.to_owned(), hasher: Hasher::new() };
        dir.add(OsStr::new(""), own);
        dir
    }

    fn add(&mut self, name: &OsStr, digest: &Digest) {
        self.hasher.update([0]);
        self.hasher.update(name.as_bytes());
        self.hasher.update(digest.to_string());
    }

    /// Ends the innermost of `dirs`: the digest, if it was the last one.
    fn close(dirs: &mut Vec<Self>) -> Option<Digest> {
        let Self { path, hasher } = dirs.pop()?;
        let digest = hasher.finish();
        match dirs.last_mut() {
            Some(above) => {
                above.add(path.file_name().unwrap_or_default(), &digest);
                None
            }
            None => Some(digest),
        }
    }
}

/// Files that wildcards or patterns have chosen.
#[derive(Default)]
struct Chosen {
    hasher: Hasher,
    count: usize,
    last: Option<(PathBuf, Digest)>,
}

impl Chosen {
    fn push(&mut self, named: &Path, digest: &Digest) {
        // Each name has a separator before it; so has the uppermost directory, which has no name.
        if named.as_os_str().is_empty() {
            self.hasher.update([0]);
        }
        for name in named {
            self.hasher.update([0]);
            self.hasher.update(name.as_bytes());
        }
        self.hasher.update(digest.to_string());
        self.count += 1;
        self.last = Some((named.to_owned(), *digest));
    }

    /// A single one that has the `name` by which it was asked for is known without it.
    fn finish(self, name: Option<&OsStr>) -> Digest {
        match self.last {
            None => Digest::of(""),
            Some((named, digest))
                if self.count == 1 && named.file_name().is_none_or(|it| Some(it) == name) =>
            {
                digest
            }
            Some(_) => self.hasher.finish(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};

    use kiln_cache::Index;
    use kiln_proto::fsutil::{GoMode, Stat};
    use rustix::fs::{CWD, FileType, Mode};

    use super::*;
    use crate::layers::{LocalTrees, Manifest};

    /// A tree of root's, and what hashes it as if it were a layer.
    struct Tree {
        files: tempfile::TempDir,
        index: tempfile::TempDir,
    }

    impl Tree {
        fn new() -> Self {
            let tree =
                Self { files: tempfile::tempdir().unwrap(), index: tempfile::tempdir().unwrap() };
            let at = |path: &str| tree.files.path().join(path);
            let chmod = |path: &str, mode: u32| {
                fs::set_permissions(at(path), fs::Permissions::from_mode(mode)).unwrap();
            };
            fs::create_dir_all(at("d/sub")).unwrap();
            let pipe = (FileType::Fifo, Mode::from(0o644));
            rustix::fs::mknodat(CWD, at("d/fifo"), pipe.0, pipe.1, 0).unwrap();
            symlink("d", at("l")).unwrap();
            for (path, content) in
                [("d/f", "hello"), ("d/sub/g", "g"), ("d/suid", "s"), ("empty", ""), ("d.x", "z")]
            {
                fs::write(at(path), content).unwrap();
            }
            for (path, mode) in [
                ("", 0o755),
                ("d", 0o755),
                ("d/sub", 0o750),
                ("d/f", 0o644),
                ("d/fifo", 0o644),
                ("d/sub/g", 0o600),
                ("d/suid", 0o4755),
                ("empty", 0o644),
                ("d.x", 0o644),
            ] {
                chmod(path, mode);
            }
            tree
        }

        fn digest(&self, selector: &Selector) -> anyhow::Result<Digest> {
            let index = Arc::new(Index::open(self.index.path())?);
            let files = FileDigests::none(index);
            let view = View::of_directory(self.files.path())?;
            Hashing { view, files, list: FileListBuilder::default() }.selector(selector)
        }

        /// The same files as a client's.
        fn announced(&self) -> Announced {
            let view = View::of_directory(self.files.path()).unwrap();
            let mut manifest = Manifest::new();
            for entry in view.walk(Path::new("")).unwrap() {
                let entry = entry.unwrap();
                let path = entry.path().to_str().unwrap().to_owned();
                let metadata = fs::symlink_metadata(self.files.path().join(&path)).unwrap();
                let link = fs::read_link(self.files.path().join(&path)).unwrap_or_default();
                let stat = Stat {
                    path: path.clone(),
                    mode: GoMode::from_st_mode(metadata.mode()).0,
                    size: metadata.len() as i64,
                    linkname: link.to_str().unwrap().to_owned(),
                    ..Stat::default()
                };
                let digest = metadata.is_file().then(|| {
                    let mut hasher = FileHeader::of_announced(&stat).hasher();
                    hasher.update(fs::read(self.files.path().join(&path)).unwrap());
                    hasher.finish()
                });
                manifest.insert(path, TreeEntry { stat, digest });
            }
            let root = tempfile::tempdir().unwrap();
            let index = Arc::new(Index::open(root.path().join("index")).unwrap());
            let trees = LocalTrees::open(root.path(), index).unwrap();
            let tree = Arc::new(trees.lease("context", "context").unwrap().into_tree(manifest));
            Announced { view, tree, _root: root }
        }
    }

    struct Announced {
        view: View,
        tree: Arc<LocalTree>,
        _root: tempfile::TempDir,
    }

    impl Announced {
        fn digest(&self, selector: &Selector) -> anyhow::Result<Digest> {
            let (view, files) = (self.view.clone(), FileDigests::of_tree(self.tree.clone()));
            Hashing { view, files, list: FileListBuilder::default() }.selector(selector)
        }
    }

    fn strings(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    }

    fn at(path: &str) -> Selector {
        Selector { path: path.to_owned(), follow_links: true, ..Selector::default() }
    }

    fn wild(path: &str) -> Selector {
        Selector { wildcard: true, ..at(path) }
    }

    fn only(path: &str, include: &[&str]) -> Selector {
        Selector { include: strings(include), ..at(path) }
    }

    fn without(selector: Selector, exclude: &[&str]) -> Selector {
        Selector { exclude: strings(exclude), ..selector }
    }

    fn unfollowed(selector: Selector) -> Selector {
        Selector { follow_links: false, ..selector }
    }

    /// The digests that BuildKit 0.32.2 computes of the same files.
    fn examples() -> Vec<(&'static str, Selector, &'static str)> {
        vec![
            ("all", at("/"), "7f713914cce75166b1d317c8500eb688330ea9c734c58199a863f2b6b4f41e05"),
            (
                "a directory",
                at("/d"),
                "e5a93f585de35506713a64f75ba67608fcf3de11a44f1981922c886c4a72fc41",
            ),
            (
                "a file",
                at("/d/f"),
                "cb3569cdc1e1de3978ee5b8ea2a3bf0ceca715be019dc377ed496759d3cccfd6",
            ),
            (
                "a link",
                unfollowed(at("/l")),
                "6770336f1c1892104b53ea1521dd7fd4ff5e13560d5fba8a7224866b3b16a52f",
            ),
            (
                "what a link names",
                at("/l"),
                "e5a93f585de35506713a64f75ba67608fcf3de11a44f1981922c886c4a72fc41",
            ),
            (
                "a file below a link",
                unfollowed(at("/l/f")),
                "cb3569cdc1e1de3978ee5b8ea2a3bf0ceca715be019dc377ed496759d3cccfd6",
            ),
            (
                "by wildcard",
                wild("/d/f*"),
                "51d34d81f55e16cc1a0ed220c88102452707cb27944320f84a77c174b0b997e0",
            ),
            (
                "one by wildcard",
                wild("/d/suid*"),
                "95e00c026fbd6baa67d255932a096ffc81c386b91444eced1fbb1cc07ac5ecaa",
            ),
            (
                "none by wildcard",
                wild("/d/none*"),
                "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
            ),
            (
                "directories by wildcard",
                wild("/*"),
                "33ea260926815cef58969b60426d02a7286bb73f2ef7cc52bf34b2e5b940e84e",
            ),
            (
                "directories by wildcard, and links as they are",
                unfollowed(wild("/*")),
                "b95100da1c57420750427f151feeab516892db0498c1e7aa6b9bbac074b4545b",
            ),
            (
                "one of that name by wildcard",
                wild("/*/f"),
                "cb3569cdc1e1de3978ee5b8ea2a3bf0ceca715be019dc377ed496759d3cccfd6",
            ),
            (
                "by wildcard below a link",
                wild("/l/f*"),
                "51d34d81f55e16cc1a0ed220c88102452707cb27944320f84a77c174b0b997e0",
            ),
            (
                "all but some",
                without(at("/"), &["d/sub", "l"]),
                "a768535a310fa8ab96675889ffad29a80d3d36ef7baae347f3f6a77efa27d6d4",
            ),
            (
                "a directory but some",
                without(at("/d"), &["sub"]),
                "553f34104c89fbd8ea680dbf80b2da96d652d0e86f2cf908df16b221f7413c7f",
            ),
            (
                "none but one",
                without(at("/d"), &["**", "!sub/g"]),
                "9e0d89fac76a8ac643f59387fe335460d5a81b219c1edef90f547381bf4cb1fd",
            ),
            (
                "a file, whatever is excluded",
                without(at("/d/f"), &["x"]),
                "cb3569cdc1e1de3978ee5b8ea2a3bf0ceca715be019dc377ed496759d3cccfd6",
            ),
            (
                "a file by pattern",
                only("/", &["d/f"]),
                "64556a3d51fc1af2ef0c053f072ba2441b2439e0e12a6c053371de46782307ba",
            ),
            (
                "deep files by pattern",
                only("/", &["d/sub/*"]),
                "1533aa340bcd00025769b8de4e2a24b0a397c2cb01bb0bed50d69c8e48a89b5f",
            ),
            (
                "a directory by pattern",
                only("/", &["d/sub"]),
                "1533aa340bcd00025769b8de4e2a24b0a397c2cb01bb0bed50d69c8e48a89b5f",
            ),
            (
                "none by pattern",
                only("/", &["zz"]),
                "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
            ),
            (
                "all of a directory by pattern",
                only("/d", &["*"]),
                "c6cb5dc6f692fdc05a4c742f57da0a80fa25991bd7a6fc9ecd1b93ad837ed281",
            ),
            (
                "by wildcard but some",
                without(wild("/*"), &["sub", "fifo"]),
                "b616e6043e4baaa957d61416748c0820c95d90f247dee16ef74ca783c6750d25",
            ),
        ]
    }

    #[test]
    fn files_have_the_digest_that_buildkit_gives_them() {
        let tree = Tree::new();
        for (name, selector, expected) in examples() {
            let digest = tree.digest(&selector).unwrap().to_string();
            assert_eq!(digest, format!("sha256:{expected}"), "{name}");
        }
    }

    #[test]
    fn what_a_client_has_announced_has_the_digest_of_what_is_on_the_disk() {
        let tree = Tree::new();
        let announced = tree.announced();
        // Its root is nobody's, and counts for nothing.
        for (name, selector, expected) in examples().into_iter().filter(|(name, ..)| *name != "all")
        {
            let digest = announced.digest(&selector).unwrap().to_string();
            assert_eq!(digest, format!("sha256:{expected}"), "{name}");
            // Of single files nobody looks at the disk.
            let known = super::announced(&announced.tree, &[selector, at("/d/suid")]);
            assert_eq!(known.is_some(), name == "a file", "{name}");
            if let Some((both, files)) = known {
                let suid = announced.digest(&at("/d/suid")).unwrap();
                assert_eq!(both, Digest::of(format!("{digest}\0{suid}")));
                assert!(files.is_some());
            }
        }
        assert!(announced.digest(&at("/none")).unwrap_err().is::<NotFound>());
        assert_ne!(
            announced.digest(&without(at("/"), &["d"])).unwrap(),
            announced.digest(&without(at("/"), &["d/sub"])).unwrap()
        );
    }

    #[test]
    fn where_patterns_choose_links_count_by_where_they_lead() {
        let tree = Tree::new();
        let before = tree.digest(&without(at("/"), &["d.x"])).unwrap();
        fs::create_dir(tree.files.path().join("e")).unwrap();
        fs::remove_file(tree.files.path().join("l")).unwrap();
        symlink("e", tree.files.path().join("l")).unwrap();
        assert_ne!(tree.digest(&without(at("/"), &["d.x", "e"])).unwrap(), before);
    }

    #[test]
    fn patterns_choose_below_what_a_link_names() {
        let tree = Tree::new();
        let below = |path: &str| tree.digest(&only(path, &["f"])).unwrap();
        assert_eq!(below("/l"), below("/d"));
    }

    #[test]
    fn what_is_not_there_is_an_error() {
        let tree = Tree::new();
        for selector in [at("/no"), wild("/no/*"), only("/no", &["x"])] {
            assert!(tree.digest(&selector).is_err(), "{selector:?}");
        }
    }
}
