//! `--ssh`: agents that steps may use.

use super::invalid::Invalid;
use std::path::PathBuf;

/// One agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ssh {
    /// The name that steps ask for.
    pub(crate) id: String,
    /// The agent's socket; without one it is `SSH_AUTH_SOCK`.
    pub(crate) socket: Option<PathBuf>,
}

/// The agent that steps get when they name none.
pub(crate) const DEFAULT_ID: &str = "default";

/// Reads one `--ssh`: `ID` or `ID=SOCKET`.
pub(crate) fn parse(text: &str) -> Result<Ssh, Invalid> {
    let (id, paths) = match text.split_once('=') {
        Some((id, paths)) => (id, paths),
        None => (text, ""),
    };
    if paths.contains(',') {
        return Err(Invalid::Unsupported("a list of key files (start an ssh-agent)".to_owned()));
    }
    let id = if id.is_empty() { DEFAULT_ID } else { id };
    let socket = (!paths.is_empty()).then(|| paths.into());
    Ok(Ssh { id: id.to_owned(), socket })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_has_a_name_and_perhaps_a_socket() {
        for (text, id, socket) in [
            ("default", "default", None),
            ("work=/run/agent.sock", "work", Some("/run/agent.sock")),
            ("=/s", "default", Some("/s")),
        ] {
            let expected = Ssh { id: id.to_owned(), socket: socket.map(PathBuf::from) };
            assert_eq!(parse(text), Ok(expected), "{text}");
        }
        assert!(parse("a=k1,k2").is_err());
    }
}
