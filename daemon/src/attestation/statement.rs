//! In-toto statements (in-toto/attestation, `spec/v1/statement.md`).

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use super::{Attestation, Subject};

const TYPE: &str = "https://in-toto.io/Statement/v1";
/// What a subject is called that has no name.
const UNNAMED: &str = "_";

/// Digests of one thing, by algorithm.
pub(crate) type DigestSet = BTreeMap<String, String>;

/// A predicate and what it is about.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Statement {
    #[serde(rename = "_type", default, deserialize_with = "nullable")]
    kind: String,
    #[serde(default, deserialize_with = "nullable")]
    pub(crate) predicate_type: String,
    #[serde(default, deserialize_with = "nullable")]
    pub(super) subject: Vec<StatementSubject>,
    #[serde(default)]
    pub(super) predicate: Value,
}

/// Something that a statement is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StatementSubject {
    #[serde(default, deserialize_with = "nullable")]
    pub(crate) name: String,
    #[serde(default, deserialize_with = "nullable")]
    pub(crate) digest: DigestSet,
}

/// Scanners write `null` for what is empty.
fn nullable<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

impl Statement {
    /// The statement of an attestation about `exported`.
    pub(crate) fn new(
        attestation: &Attestation,
        predicate: Value,
        exported: &[StatementSubject],
    ) -> Self {
        let itself = [Subject::Itself { name: String::new() }];
        let subjects =
            if attestation.subjects.is_empty() { &itself[..] } else { &attestation.subjects };
        let mut subject = Vec::new();
        for about in subjects {
            match about {
                Subject::Itself { name } => {
                    for exported in exported {
                        subject.push(exported.clone());
                        if !name.is_empty() {
                            let (name, digest) = (name.clone(), exported.digest.clone());
                            subject.push(StatementSubject { name, digest });
                        }
                    }
                }
                Subject::Other { name, digests } => {
                    let name = if name.is_empty() { UNNAMED } else { name };
                    let (name, digest) = (name.to_owned(), digests.clone());
                    subject.push(StatementSubject { name, digest });
                }
            }
        }
        let predicate_type = attestation.predicate_type.clone();
        Self { kind: TYPE.to_owned(), predicate_type, subject, predicate }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::{Content, Kind};
    use super::*;

    #[test]
    fn a_statement_may_have_null_for_what_is_empty() {
        let json = r#"{ "_type": "t", "predicateType": "p", "subject": null, "predicate": null }"#;
        let statement: Statement = serde_json::from_str(json).unwrap();
        assert_eq!((&*statement.predicate_type, statement.subject.len()), ("p", 0));
    }

    #[test]
    fn a_statement_is_about_what_is_exported_unless_it_says_something_else() {
        let digests = |hex: &str| DigestSet::from([("sha256".to_owned(), hex.to_owned())]);
        let exported = [StatementSubject { name: "pkg:a".into(), digest: digests("aa") }];
        let statement = |subjects: Vec<Subject>| {
            let attestation = Attestation {
                kind: Kind::InToto,
                metadata: BTreeMap::new(),
                content: Content::Nothing,
                path: String::new(),
                predicate_type: "type".to_owned(),
                subjects,
            };
            serde_json::to_value(Statement::new(&attestation, json!({}), &exported)).unwrap()
        };
        let a = json!({ "name": "pkg:a", "digest": { "sha256": "aa" } });
        assert_eq!(
            statement(Vec::new()),
            json!({ "_type": TYPE, "predicateType": "type", "subject": [a], "predicate": {} })
        );
        let named = Subject::Itself { name: "n".into() };
        let other = Subject::Other { name: String::new(), digests: digests("bb") };
        assert_eq!(
            statement(vec![named, other])["subject"],
            json!([
                a,
                { "name": "n", "digest": { "sha256": "aa" } },
                { "name": "_", "digest": { "sha256": "bb" } },
            ])
        );
    }
}
