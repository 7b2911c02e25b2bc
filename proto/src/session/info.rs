//! What a client says about its session.

use crate::header;
use std::time::Duration;
use thiserror::Error;
use tonic::metadata::MetadataMap;

const ID: &str = "x-docker-expose-session-uuid";
const NAME: &str = "x-docker-expose-session-name";
const SHARED_KEY: &str = "x-docker-expose-session-sharedkey";
const METHOD: &str = "x-docker-expose-session-grpc-method";
const HEALTH_TIMEOUT: &str = "x-buildkit-session-health-custom-timeout";

/// Health checks more frequent than this only load slow machines.
const MIN_HEALTH_TIMEOUT: Duration = Duration::from_secs(1);

/// A session as it introduces itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SessionInfo {
    /// Names the session in a build's request.
    pub id: String,
    /// For people; may be empty.
    pub name: String,
    /// The same for each session of one context directory; may be empty.
    pub shared_key: String,
    /// The methods that the client serves, as paths ([`super::methods`]).
    pub methods: Vec<String>,
    /// How long the client may stay silent, and how often to ask, if it has a wish.
    pub health_timeout: Option<Duration>,
}

/// A session that does not introduce itself as it must.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum BadInfo {
    /// There is no id.
    #[error("session without an id ({ID})")]
    MissingId,
    /// A value cannot be a header's.
    #[error("session: {field} has a character that a header cannot carry: {value:?}")]
    Unprintable {
        /// The header.
        field: &'static str,
        /// Its value.
        value: String,
    },
}

impl SessionInfo {
    /// Whether the client serves a method, given as its path.
    ///
    /// Letter case does not count, because clients write `diffcopy` as well as `DiffCopy`.
    pub fn supports(&self, method: &str) -> bool {
        self.methods.iter().any(|supported| supported.eq_ignore_ascii_case(method))
    }

    /// Reads the metadata of a `Session` call.
    pub fn from_metadata(metadata: &MetadataMap) -> Result<Self, BadInfo> {
        let first = |name| header::get_first(metadata, name).unwrap_or_default();
        let id = first(ID);
        if id.is_empty() {
            return Err(BadInfo::MissingId);
        }
        let health_timeout = first(HEALTH_TIMEOUT)
            .parse()
            .ok()
            .filter(|&milliseconds| milliseconds > 0)
            .map(|milliseconds| Duration::from_millis(milliseconds).max(MIN_HEALTH_TIMEOUT));
        Ok(Self {
            id,
            name: first(NAME),
            shared_key: first(SHARED_KEY),
            methods: header::get(metadata, METHOD),
            health_timeout,
        })
    }

    /// Writes the metadata of a `Session` call.
    pub fn write_metadata(&self, metadata: &mut MetadataMap) -> Result<(), BadInfo> {
        if self.id.is_empty() {
            return Err(BadInfo::MissingId);
        }
        let mut append = |field: &'static str, value: &str| {
            let encoded = value
                .parse()
                .map_err(|_| BadInfo::Unprintable { field, value: value.to_owned() })?;
            metadata.append(field, encoded);
            Ok(())
        };
        append(ID, &self.id)?;
        append(NAME, &self.name)?;
        append(SHARED_KEY, &self.shared_key)?;
        for method in &self.methods {
            append(METHOD, method)?;
        }
        if let Some(timeout) = self.health_timeout {
            append(HEALTH_TIMEOUT, &timeout.as_millis().to_string())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_understood_as_it_introduced_itself() {
        let info = SessionInfo {
            id: "abc".to_owned(),
            name: String::new(),
            shared_key: "key".to_owned(),
            methods: vec!["/a.B/C".to_owned(), "/a.B/D".to_owned()],
            health_timeout: Some(Duration::from_secs(2)),
        };
        let mut metadata = MetadataMap::new();
        info.write_metadata(&mut metadata).unwrap();
        let read = SessionInfo::from_metadata(&metadata).unwrap();
        assert_eq!(read, info);
        assert!(read.supports("/a.b/c"));
        assert!(!read.supports("/a.B/E"));
    }

    #[test]
    fn a_session_needs_an_id() {
        assert_eq!(SessionInfo::from_metadata(&MetadataMap::new()), Err(BadInfo::MissingId));
    }

    #[test]
    fn a_wish_for_hectic_health_checks_is_moderated() {
        for (given, expected) in
            [("1", Some(MIN_HEALTH_TIMEOUT)), ("0", None), ("-5", None), ("soon", None)]
        {
            let mut metadata = MetadataMap::new();
            metadata.insert(ID, "abc".parse().unwrap());
            metadata.insert(HEALTH_TIMEOUT, given.parse().unwrap());
            let info = SessionInfo::from_metadata(&metadata).unwrap();
            assert_eq!(info.health_timeout, expected, "{given}");
        }
    }
}
