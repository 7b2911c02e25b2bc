//! Booleans as docker's flags spell them.

use super::invalid::Invalid;

/// Reads a boolean.
pub(crate) fn parse(value: &str) -> Result<bool, Invalid> {
    match value {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(Invalid::not(value, "a boolean (true or false)")),
    }
}

/// Whether a value is a boolean that holds.
pub(crate) fn holds(value: &str) -> bool {
    parse(value) == Ok(true)
}
