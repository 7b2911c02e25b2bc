//! `--format`: the part of Go's templates that is of use for one line a record.

use super::invalid::Invalid;
use std::str::FromStr;

/// The fields that a record has, with the titles of their columns.
pub(crate) const FIELDS: [(&str, &str); 11] = [
    ("ID", "ID"),
    ("Parents", "PARENTS"),
    ("CreatedAt", "CREATED AT"),
    ("Mutable", "MUTABLE"),
    ("Reclaimable", "RECLAIMABLE"),
    ("Shared", "SHARED"),
    ("Size", "SIZE"),
    ("Description", "DESCRIPTION"),
    ("UsageCount", "USAGE COUNT"),
    ("LastUsedAt", "LAST ACCESSED"),
    ("Type", "TYPE"),
];

const KNOWN: &str = "something that can be shown, such as .ID, .Size or json .";

/// A line with places for a record's fields.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Template {
    /// Whether lines have columns, divided by tabs, and titles.
    pub(crate) is_table: bool,
    pub(crate) pieces: Vec<Piece>,
}

/// A part of a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Piece {
    Text(String),
    /// A field, by its place in [`FIELDS`].
    Field(usize),
    /// A field as JSON, or the whole record.
    Json(Option<usize>),
}

impl FromStr for Template {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let line = text.strip_prefix("table ");
        let is_table = line.is_some();
        let mut rest = line.unwrap_or(text);
        let mut pieces = Vec::new();
        while let Some((before, after)) = rest.split_once("{{") {
            let not_closed = || Invalid::not(text, "a format: {{ without }}");
            let (action, after) = after.split_once("}}").ok_or_else(not_closed)?;
            pieces.push(Piece::Text(unescaped(before)));
            let unknown = || Invalid::not(action, KNOWN);
            pieces.push(Piece::parse(action.trim()).ok_or_else(unknown)?);
            rest = after;
        }
        pieces.push(Piece::Text(unescaped(rest)));
        pieces.retain(|piece| *piece != Piece::Text(String::new()));
        Ok(Self { is_table, pieces })
    }
}

impl Piece {
    fn parse(action: &str) -> Option<Self> {
        let field = |name: &str| FIELDS.iter().position(|(field, _)| *field == name);
        if let Some(value) = action.strip_prefix("json ") {
            let name = value.trim().strip_prefix('.')?;
            return Some(Self::Json(if name.is_empty() { None } else { Some(field(name)?) }));
        }
        field(action.strip_prefix('.')?).map(Self::Field)
    }
}

/// Shells make it hard to type a tab.
fn unescaped(text: &str) -> String {
    text.replace(r"\t", "\t").replace(r"\n", "\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_has_text_and_fields() {
        let text = |text: &str| Piece::Text(text.to_owned());
        let size = Piece::Field(6);
        let parse = |text: &str| text.parse::<Template>().unwrap();
        assert_eq!(
            parse("{{.ID}}: {{ .Size }}").pieces,
            [Piece::Field(0), text(": "), size.clone()]
        );
        assert_eq!(parse("{{json .}}").pieces, [Piece::Json(None)]);
        assert_eq!(parse("{{json .Size}}").pieces, [Piece::Json(Some(6))]);
        let table = parse(r"table {{.Type}}\t{{.Size}}");
        assert!(table.is_table);
        assert_eq!(table.pieces, [Piece::Field(10), text("\t"), size]);
        for text in ["{{.ID", "{{.Id}}", "{{json}}", "{{range .Parents}}", "{{upper .ID}}"] {
            assert!(text.parse::<Template>().is_err(), "{text}");
        }
    }
}
