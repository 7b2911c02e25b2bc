//! The colours of the live view.

use crate::args::csv;

/// What is coloured. `None` is the terminal's own colour.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Colors {
    pub(crate) run: Option<Color>,
    pub(crate) cancel: Option<Color>,
    pub(crate) warning: Option<Color>,
    pub(crate) error: Option<Color>,
    /// Whether anything may be coloured at all.
    pub(crate) is_on: bool,
}

/// One colour, as the parameter of a control sequence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Color(String);

impl Color {
    fn code(code: u8) -> Self {
        Self(code.to_string())
    }

    /// The nearest colour of the cube of 216.
    fn rgb(red: u8, green: u8, blue: u8) -> Self {
        let level = |value: u8| u16::from(value) * 6 / 256;
        Self(format!("38;5;{}", 16 + 36 * level(red) + 6 * level(green) + level(blue)))
    }

    pub(crate) fn paint(&self, text: &str) -> String {
        format!("\x1b[{}m{text}\x1b[0m", self.0)
    }
}

impl Colors {
    /// No colours at all.
    pub(crate) fn none() -> Self {
        Self { run: None, cancel: None, warning: None, error: None, is_on: false }
    }

    /// The usual colours, as changed by `NO_COLOR` and `BUILDKIT_COLORS`.
    pub(crate) fn from_env(env: impl Fn(&str) -> Option<String>) -> Self {
        if env("NO_COLOR").is_some_and(|value| !value.is_empty()) {
            return Self::none();
        }
        let mut colors = Self {
            run: Some(Color::code(34)),
            cancel: Some(Color::code(33)),
            warning: Some(Color::code(33)),
            error: Some(Color::code(31)),
            is_on: true,
        };
        for part in split(&env("BUILDKIT_COLORS").unwrap_or_default()) {
            // What cannot be understood leaves a colour as it is: a build is not about colours.
            let Some((key, value)) = part.split_once('=') else { continue };
            let Some(color) = parse(value) else { continue };
            match key.to_ascii_lowercase().as_str() {
                "run" => colors.run = Some(color),
                "cancel" => colors.cancel = Some(color),
                "warning" => colors.warning = Some(color),
                "error" => colors.error = Some(color),
                _ => {}
            }
        }
        colors
    }

    /// Makes text step back.
    pub(crate) fn faint(&self, text: &str) -> String {
        if self.is_on { format!("\x1b[2m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// Paints text, if it is to be painted.
pub(crate) fn paint(color: Option<&Color>, text: &str) -> String {
    color.map_or_else(|| text.to_owned(), |color| color.paint(text))
}

/// Splits at colons; a part in quotes may hold commas.
fn split(value: &str) -> Vec<String> {
    value.split(':').map(|part| part.trim_matches('"').to_owned()).collect()
}

fn parse(value: &str) -> Option<Color> {
    let name = value.to_ascii_lowercase();
    let (bright, base) = match name.strip_prefix("light-") {
        Some(base) => (60, base),
        None => (0, name.as_str()),
    };
    let code = match base {
        "black" => 30,
        "red" => 31,
        "green" => 32,
        "yellow" => 33,
        "blue" => 34,
        "magenta" => 35,
        "cyan" => 36,
        "white" => 37,
        "default" if bright == 0 => 39,
        _ => {
            let fields = csv::fields(value).ok()?;
            let [red, green, blue] = fields.as_slice() else { return None };
            return Some(Color::rgb(red.parse().ok()?, green.parse().ok()?, blue.parse().ok()?));
        }
    };
    Some(Color::code(code + bright))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn colors(name: &str, value: &str) -> Colors {
        Colors::from_env(|key| (key == name).then(|| value.to_owned()))
    }

    #[test]
    fn colours_can_be_chosen() {
        let chosen = colors("BUILDKIT_COLORS", "run=light-green:warning=1,2,255:error=nonsense:x");
        assert_eq!(chosen.run, Some(Color::code(92)));
        assert_eq!(chosen.warning, Some(Color("38;5;21".to_owned())));
        assert_eq!(chosen.error, Some(Color::code(31)));
        assert_eq!(chosen.cancel, Some(Color::code(33)));
    }

    #[test]
    fn no_color_means_none() {
        let none = colors("NO_COLOR", "1");
        assert_eq!(paint(none.run.as_ref(), "x"), "x");
        assert_eq!(none.faint("x"), "x");
        assert!(colors("NO_COLOR", "").is_on);
    }
}
