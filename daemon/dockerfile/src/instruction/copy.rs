use std::collections::HashMap;

use super::Statement;
use crate::error::ErrorKind;
use crate::flags::{Flags, Takes};
use crate::heredoc::Heredoc;

/// What COPY and ADD have in common.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transfer {
    /// Paths, and for ADD also URLs and repositories, as written.
    pub sources: Vec<String>,
    /// Files whose content stands in the Dockerfile.
    pub files: Vec<InlineFile>,
    /// Where everything goes, as written.
    pub destination: String,
    /// `--chown` as written.
    pub chown: Option<String>,
    /// `--chmod` as written.
    pub chmod: Option<String>,
    /// `--link`
    pub link: bool,
    /// `--exclude`, as often as it was given. These are not expanded.
    pub exclude: Vec<String>,
}

/// A file whose content stands in the Dockerfile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InlineFile {
    /// Its name.
    pub name: String,
    /// Its content, unexpanded.
    pub content: String,
    /// Whether variables are replaced in the content, quotes having no meaning there.
    pub expand: bool,
}

/// `COPY`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Copy {
    /// Sources, destination and the flags that ADD has as well.
    pub transfer: Transfer,
    /// `--from`: a stage, its index, an image or a named context. The build context if absent.
    pub from: Option<String>,
    /// `--parents`: keep the sources' directories.
    pub parents: bool,
}

/// `ADD`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Add {
    /// Sources, destination and the flags that COPY has as well.
    pub transfer: Transfer,
    /// `--keep-git-dir`, if given.
    pub keep_git_dir: Option<bool>,
    /// `--checksum` as written.
    pub checksum: Option<String>,
    /// `--unpack`, if given; by default local archives are unpacked and others are not.
    pub unpack: Option<bool>,
}

impl Copy {
    pub(crate) fn parse(statement: &Statement) -> Result<Self, ErrorKind> {
        const FLAGS: &[(&str, Takes)] = &[
            ("chown", Takes::Value),
            ("from", Takes::Value),
            ("chmod", Takes::Value),
            ("link", Takes::Switch),
            ("exclude", Takes::Values),
            ("parents", Takes::Switch),
        ];
        let words = words(statement, "COPY")?;
        let mut flags = Flags::parse(&statement.flags, FLAGS)?;
        Ok(Self {
            transfer: Transfer::parse(statement, words, &mut flags, "COPY")?,
            from: flags.non_empty("from"),
            parents: flags.switch("parents").unwrap_or(false),
        })
    }
}

impl Add {
    pub(crate) fn parse(statement: &Statement) -> Result<Self, ErrorKind> {
        const FLAGS: &[(&str, Takes)] = &[
            ("chown", Takes::Value),
            ("chmod", Takes::Value),
            ("link", Takes::Switch),
            ("keep-git-dir", Takes::Switch),
            ("checksum", Takes::Value),
            ("unpack", Takes::Switch),
            ("exclude", Takes::Values),
        ];
        let words = words(statement, "ADD")?;
        let mut flags = Flags::parse(&statement.flags, FLAGS)?;
        Ok(Self {
            transfer: Transfer::parse(statement, words, &mut flags, "ADD")?,
            keep_git_dir: flags.switch("keep-git-dir"),
            checksum: flags.non_empty("checksum"),
            unpack: flags.switch("unpack"),
        })
    }
}

/// The words of a COPY or ADD, and whether they are in JSON form, where nothing is a heredoc.
fn words(
    statement: &Statement,
    instruction: &'static str,
) -> Result<(Vec<String>, bool), ErrorKind> {
    let (words, is_json) = match statement.json()? {
        Some(words) => (words, true),
        None => (statement.blank_words(), false),
    };
    if words.len() < 2 {
        return Err(ErrorKind::MissingDestination { instruction });
    }
    Ok((words, is_json))
}

impl Transfer {
    fn parse(
        statement: &Statement,
        (mut words, is_json): (Vec<String>, bool),
        flags: &mut Flags,
        instruction: &'static str,
    ) -> Result<Self, ErrorKind> {
        let destination = words.pop().ok_or(ErrorKind::MissingDestination { instruction })?;
        let mut transfer = Self {
            sources: Vec::new(),
            files: Vec::new(),
            destination,
            chown: flags.non_empty("chown"),
            chmod: flags.non_empty("chmod"),
            link: flags.switch("link").unwrap_or(false),
            exclude: flags.values("exclude"),
        };
        if is_json {
            transfer.sources = words;
            return Ok(transfer);
        }
        if is_heredoc(&transfer.destination) {
            return Err(ErrorKind::HeredocDestination { instruction });
        }
        let contents: HashMap<&str, &Heredoc> =
            statement.heredocs.iter().map(|doc| (doc.name.as_str(), doc)).collect();
        for word in words {
            let inline = Heredoc::from_word(&word).ok().flatten();
            match inline.and_then(|doc| contents.get(doc.name.as_str())) {
                Some(doc) => transfer.files.push(InlineFile {
                    name: doc.name.clone(),
                    content: doc.body(),
                    expand: doc.expand,
                }),
                None => transfer.sources.push(word),
            }
        }
        Ok(transfer)
    }
}

fn is_heredoc(word: &str) -> bool {
    matches!(Heredoc::from_word(word), Ok(Some(_)))
}
