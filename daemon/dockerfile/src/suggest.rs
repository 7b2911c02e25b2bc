//! "Did you mean": the known word nearest to one that is not known.

/// Fewest edits that are no longer a slip of the keyboard.
const TOO_FAR: usize = 3;

/// Longest word worth comparing, in bytes; names people type are shorter, and the comparison is quadratic.
const LONGEST: usize = 256;

/// The option nearest to `word` by edit distance, if one is near enough to be what was meant.
///
/// Nothing is suggested when `word` is itself an option: the mistake is elsewhere then.
pub fn closest<'a>(word: &str, options: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let mut best = None;
    let mut nearest = TOO_FAR;
    for option in options {
        if option == word {
            return None;
        }
        let distance = edit_distance(word, option);
        if distance < nearest {
            nearest = distance;
            best = Some(option);
        }
    }
    best
}

/// Like [`closest`], comparing without regard to case; the answer is written in `word`'s case.
pub(crate) fn closest_any_case<'a>(
    word: &str,
    options: impl IntoIterator<Item = &'a str>,
) -> Option<String> {
    let lower = word.to_lowercase();
    let options: Vec<String> = options.into_iter().map(str::to_lowercase).collect();
    let found = closest(&lower, options.iter().map(String::as_str))?;
    Some(if word == word.to_uppercase() { found.to_uppercase() } else { found.to_owned() })
}

/// The number of letters to insert, drop, replace or swap with their neighbour, cut off at
/// [`TOO_FAR`].
fn edit_distance(left: &str, right: &str) -> usize {
    if left.len().max(right.len()) > LONGEST {
        return TOO_FAR;
    }
    let left: Vec<char> = left.chars().collect();
    let right: Vec<char> = right.chars().collect();
    if left.len().abs_diff(right.len()) >= TOO_FAR {
        return TOO_FAR;
    }
    let mut before_last = Vec::new();
    let mut last: Vec<usize> = (0..=right.len()).collect();
    for i in 0..left.len() {
        let mut row = vec![i + 1];
        for j in 0..right.len() {
            let replaced = last[j] + usize::from(left[i] != right[j]);
            let mut least = replaced.min(last[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && left[i] == right[j - 1] && left[i - 1] == right[j] {
                least = least.min(before_last[j - 1] + 1);
            }
            row.push(least);
        }
        before_last = std::mem::replace(&mut last, row);
    }
    last[right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_word_within_two_edits_is_suggested() {
        let options = ["platform", "parents", "from"];
        assert_eq!(closest("platfrom", options), Some("platform"));
        assert_eq!(closest("form", options), Some("from"));
        assert_eq!(closest("link", options), None);
        assert_eq!(closest("RNU", ["ENV", "RUN"]), Some("RUN"));
    }

    #[test]
    fn a_known_word_is_never_corrected() {
        assert_eq!(closest("from", ["form", "from"]), None);
    }

    #[test]
    fn the_case_of_the_mistake_is_kept() {
        assert_eq!(closest_any_case("FRMO", ["from", "run"]).as_deref(), Some("FROM"));
        assert_eq!(closest_any_case("frmo", ["FROM"]).as_deref(), Some("from"));
    }

    #[test]
    fn endless_words_are_not_compared() {
        let long = "x".repeat(1 << 20);
        assert_eq!(closest(&long, [long[1..].as_ref()]), None);
    }
}
