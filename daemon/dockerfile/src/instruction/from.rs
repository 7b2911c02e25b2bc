use super::{Instruction, Statement};
use crate::Location;
use crate::error::ErrorKind;
use crate::flags::{Flags, Takes};
use crate::lines::Comments;

/// A stage: FROM and the instructions up to the next one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stage {
    /// Its name in lower case, as stages are referred to without regard to case.
    pub name: Option<String>,
    /// Its name as written.
    pub written_name: Option<String>,
    /// The image or stage it starts from, as written.
    pub base: String,
    /// `--platform` as written.
    pub platform: Option<String>,
    /// The keyword FROM as written.
    pub keyword: String,
    /// The keyword AS as written, if the stage has a name.
    pub as_keyword: Option<String>,
    /// The FROM as one line.
    pub source: String,
    /// The lines of the FROM.
    pub location: Location,
    /// The comments before it.
    pub comments: Comments,
    /// The description that one of them gives.
    pub description: Option<String>,
    /// What is done in it, in order.
    pub instructions: Vec<Instruction>,
}

impl Stage {
    pub(crate) fn parse(statement: &Statement) -> Result<Self, ErrorKind> {
        let words = statement.blank_words();
        let (base, named) = match words.as_slice() {
            [base] => (base, None),
            [base, keyword, name] if keyword.eq_ignore_ascii_case("as") => {
                (base, Some((keyword, name)))
            }
            _ => return Err(ErrorKind::FromArguments),
        };
        let name = named.map(|(_, name)| stage_name(name)).transpose()?;
        let mut flags = Flags::parse(&statement.flags, &[("platform", Takes::Value)])?;
        Ok(Self {
            description: name.as_ref().and_then(|name| statement.comments.describe(name)),
            name,
            written_name: named.map(|(_, name)| name.clone()),
            base: base.clone(),
            platform: flags.non_empty("platform"),
            keyword: statement.keyword.clone(),
            as_keyword: named.map(|(keyword, _)| keyword.clone()),
            source: statement.line.trim().to_owned(),
            location: statement.location,
            comments: statement.comments.clone(),
            instructions: Vec::new(),
        })
    }
}

fn stage_name(written: &str) -> Result<String, ErrorKind> {
    let name = written.to_lowercase();
    let starts_well = name.starts_with(|c: char| c.is_ascii_lowercase());
    let goes_on_well = name
        .chars()
        .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_' | '.'));
    if starts_well && goes_on_well {
        Ok(name)
    } else {
        Err(ErrorKind::InvalidStageName { name: written.to_owned() })
    }
}
