//! The difference of two trees that need not have been made of one another.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use crate::copy::{CopyError, CopyOptions, Decision, copy};
use crate::diff::compare::{Side, is_same};
use crate::error::{At, FsError};
use crate::layer::LayerDir;
use crate::view::View;
use crate::view::merged_dir::{MergedDir, Part};
use crate::writer::LayerWriter;

/// Writes into a layer what makes the stack that it lies on look like `upper`: what that does not
/// have is removed, what it has otherwise is copied, by links where they can be made.
///
/// What counts as different is what does in a packed layer. Directories that both trees have from
/// the same layers are not read.
pub fn mirror(
    upper: &View,
    writer: &mut LayerWriter,
    is_cancelled: &dyn Fn() -> bool,
) -> Result<(), CopyError> {
    let changes = Changes::between(writer.view(), upper, is_cancelled)?;
    for path in &changes.removed {
        writer.remove(path).map_err(CopyError::Destination)?;
    }
    // The directories above get the modification time that they have there.
    let mut copied: HashSet<&Path> = changes.changed.iter().map(PathBuf::as_path).collect();
    for path in changes.removed.iter().chain(&changes.changed) {
        path.ancestors().skip(1).take_while(|above| copied.insert(above)).for_each(drop);
    }
    if copied.is_empty() || upper.depth() == 0 {
        return Ok(());
    }
    let mut filter = |path: &Path, _is_dir: bool| {
        let is_copied = copied.contains(path)
            || path.ancestors().any(|above| changes.new_directories.contains(above));
        if is_copied { Decision::Include } else { Decision::Skip }
    };
    let mut options = CopyOptions {
        dir_copy_contents: true,
        always_replace: true,
        filter: Some(&mut filter),
        cancelled: Some(is_cancelled),
        ..CopyOptions::default()
    };
    copy(upper, "/", writer, "/", &mut options).map(drop)
}

/// How an upper tree differs from a lower one.
#[derive(Default)]
struct Changes {
    /// What only the lower one has; of a directory, itself alone.
    removed: Vec<PathBuf>,
    /// What the upper one has otherwise, or alone; of a directory, itself alone.
    changed: Vec<PathBuf>,
    /// The directories that only the upper one has, the uppermost of them: with all they hold.
    new_directories: HashSet<PathBuf>,
}

impl Changes {
    fn between(
        lower: &View,
        upper: &View,
        is_cancelled: &dyn Fn() -> bool,
    ) -> Result<Self, CopyError> {
        let mut changes = Self::default();
        // Those that both have. They are opened one at a time, however deep they are.
        let mut pending = vec![PathBuf::new()];
        while let Some(path) = pending.pop() {
            if is_cancelled() {
                return Err(CopyError::Cancelled);
            }
            let above = upper.merged(&path).map_err(CopyError::Source)?;
            let below = lower.merged(&path).map_err(CopyError::Destination)?;
            if let (Some(above), Some(below)) = (above, below)
                && !is_shared((upper, &above), (lower, &below))
            {
                let found = changes.of_directory(&path, &above, &below);
                pending.extend(found.map_err(CopyError::Source)?);
            }
        }
        Ok(changes)
    }

    /// Compares the entries of a directory, and returns those that are directories in both trees.
    fn of_directory(
        &mut self,
        path: &Path,
        above: &MergedDir,
        below: &MergedDir,
    ) -> Result<Vec<PathBuf>, FsError> {
        let mut in_both = Vec::new();
        let children = above.children().at("read the directory", path)?;
        for child in below.children().at("read the directory below", path)? {
            if children.binary_search_by(|other| other.name.cmp(&child.name)).is_err() {
                self.removed.push(path.join(&child.name));
            }
        }
        for child in children {
            let path = path.join(&child.name);
            let dir = &above.parts[child.part].dir;
            let Some(metadata) = dir.stat(&child.name).at("look up", &path)? else { continue };
            let found = below.child(&child.name).at("look up below", &path)?;
            let is_same = match &found {
                Some((part, below)) => {
                    let xattrs =
                        dir.xattrs(&child.name).at("read the extended attributes", &path)?;
                    let above = Side { dir, name: &child.name, metadata: &metadata };
                    let below = Side { dir: &part.dir, name: &child.name, metadata: below };
                    is_same(&above, &xattrs, &below).at("compare with the tree below", &path)?
                }
                None => false,
            };
            if metadata.is_dir() {
                match found {
                    Some((_, below)) if below.is_dir() => in_both.push(path.clone()),
                    _ => _ = self.new_directories.insert(path.clone()),
                }
            }
            if !is_same {
                self.changed.push(path);
            }
        }
        Ok(in_both)
    }
}

/// Whether both trees have a directory from the same layers: then they have the same in it.
fn is_shared((one, dir): (&View, &MergedDir), (other, other_dir): (&View, &MergedDir)) -> bool {
    let id = |view: &View, part: &Part| view.layer(part.layer).map(LayerDir::id);
    dir.parts.len() == other_dir.parts.len()
        && dir.parts.iter().zip(&other_dir.parts).all(|(part, other_part)| {
            id(one, part).is_some_and(|layer| id(other, other_part) == Some(layer))
        })
}
