//! Tables as text.

use std::fmt::Write as _;

/// Rows whose cells stand below each other, at least `gap` blanks apart.
pub(super) fn table<const N: usize>(gap: usize, rows: &[[&str; N]]) -> String {
    let width = |cell: &str| cell.chars().count();
    let widths: [usize; N] = std::array::from_fn(|column| {
        rows.iter().map(|row| width(row[column])).max().unwrap_or(0) + gap
    });
    let mut text = String::new();
    for row in rows {
        let (last, cells) = row.split_last().unwrap_or((&"", &[]));
        for (cell, wanted) in cells.iter().zip(widths) {
            // Writing to a string cannot fail.
            let _ = write!(text, "{cell:wanted$}");
        }
        text.push_str(last);
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::table;

    #[test]
    fn cells_stand_below_each_other() {
        let rows = [["A", "VALUE", "WHY"], ["long", "", "ß"], ["ä", "1", ""]];
        assert_eq!(table(2, &rows), "A     VALUE  WHY\nlong         ß\nä     1      \n");
    }
}
