//! Records as the user's template has them.

use super::table;
use crate::args::{FIELDS, Piece, Template};
use kiln_proto::control::UsageRecord;
use serde_json::Value;
use std::fmt::Write as _;

/// The narrowest column.
const NARROWEST: usize = 10;
/// What is between two columns.
const GAP: usize = 3;

/// A line for each record; in a table, titles come first.
pub(super) fn render(template: &Template, records: &[UsageRecord]) -> String {
    let lines = records.iter().map(|record| line(template, record));
    if !template.is_table {
        return lines.fold(String::new(), |text, line| text + &line + "\n");
    }
    let titles = template.pieces.iter().fold(String::new(), |line, piece| match piece {
        Piece::Text(text) => line + text,
        Piece::Field(field) | Piece::Json(Some(field)) => line + FIELDS[*field].1,
        Piece::Json(None) => line,
    });
    aligned(&std::iter::once(titles).chain(lines).collect::<Vec<_>>())
}

fn line(template: &Template, record: &UsageRecord) -> String {
    let all = table::json(record);
    let field = |at: usize| &all[FIELDS[at].0];
    template.pieces.iter().fold(String::new(), |line, piece| match piece {
        Piece::Text(text) => line + text,
        Piece::Json(None) => line + &all.to_string(),
        Piece::Json(Some(at)) => line + &field(*at).to_string(),
        Piece::Field(at) => {
            let is_starred = template.is_table
                && match FIELDS[*at].0 {
                    "ID" => record.mutable,
                    "Size" => record.shared,
                    _ => false,
                };
            line + &plain(field(*at)) + if is_starred { "*" } else { "" }
        }
    })
}

/// A value as Go prints it.
fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        // Of all fields, only a list can be missing.
        Value::Null => "[]".to_owned(),
        Value::Array(values) => {
            format!("[{}]", values.iter().map(plain).collect::<Vec<_>>().join(" "))
        }
        other => other.to_string(),
    }
}

/// Lines whose cells, which end with tabs, are below each other.
fn aligned(lines: &[String]) -> String {
    let mut widths = Vec::new();
    for line in lines {
        let mut cells: Vec<_> = line.split('\t').collect();
        cells.pop();
        for (at, cell) in cells.into_iter().enumerate() {
            let width = (cell.chars().count() + GAP).max(NARROWEST);
            match widths.get_mut(at) {
                Some(widest) => *widest = width.max(*widest),
                None => widths.push(width),
            }
        }
    }
    let mut text = String::new();
    for line in lines {
        let cells: Vec<_> = line.split('\t').collect();
        for (at, cell) in cells.iter().enumerate() {
            let width = if at + 1 < cells.len() { widths[at] } else { 0 };
            // Writing to a string cannot fail.
            let _ = write!(text, "{cell:width$}");
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn records() -> [UsageRecord; 2] {
        let record = |id: &str, size| UsageRecord {
            id: id.to_owned(),
            size,
            parents: vec!["a".to_owned(), "b".to_owned()],
            record_type: "regular".to_owned(),
            ..UsageRecord::default()
        };
        [record("one", 500), UsageRecord { mutable: true, shared: true, ..record("two", 1000) }]
    }

    fn rendered(template: &str) -> String {
        render(&template.parse().unwrap(), &records())
    }

    #[test]
    fn a_record_is_a_line() {
        assert_eq!(rendered("{{.ID}} {{.Size}} {{.Parents}}"), "one 500B [a b]\ntwo 1kB [a b]\n");
        assert_eq!(rendered("{{json .Size}},{{.Mutable}}"), "\"500B\",false\n\"1kB\",true\n");
    }

    #[test]
    fn a_table_has_titles_and_columns() {
        insta::assert_snapshot!(rendered(r"table {{.ID}}\t{{.Size}}\t{{.Type}}"), @r"
        ID        SIZE      TYPE
        one       500B      regular
        two*      1kB*      regular
        ");
    }
}
