//! Token scopes: which actions on which resources.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// A set of scopes in normal form: resources sorted, actions sorted, none twice.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Scopes(BTreeMap<String, BTreeSet<String>>);

impl Scopes {
    /// `pull` on a repository.
    pub(crate) fn pull(repository: &str) -> Self {
        Self::default().and(repository, &["pull"])
    }

    /// `pull` and `push` on a repository.
    pub(crate) fn push(repository: &str) -> Self {
        Self::default().and(repository, &["pull", "push"])
    }

    /// These scopes, and `actions` on `repository`.
    pub(crate) fn and(mut self, repository: &str, actions: &[&str]) -> Self {
        let granted = self.0.entry(format!("repository:{repository}")).or_default();
        granted.extend(actions.iter().map(|&action| action.to_owned()));
        self
    }

    /// Reads scopes separated by spaces: `type:name:action[,action]`. The name may have colons.
    pub(crate) fn parse(text: &str) -> Self {
        let mut scopes = Self::default();
        for scope in text.split_ascii_whitespace() {
            let (resource, actions) = match scope.split_once(':') {
                Some((_, rest)) if rest.contains(':') => {
                    scope.rsplit_once(':').unwrap_or((scope, ""))
                }
                _ => (scope, ""),
            };
            let granted = scopes.0.entry(resource.to_owned()).or_default();
            granted.extend(actions.split(',').filter(|a| !a.is_empty()).map(str::to_owned));
        }
        scopes
    }

    /// Everything that is in either.
    pub(crate) fn union(mut self, other: &Self) -> Self {
        for (resource, actions) in &other.0 {
            self.0.entry(resource.clone()).or_default().extend(actions.iter().cloned());
        }
        self
    }

    /// Whether everything in `other` is in these.
    pub(crate) fn covers(&self, other: &Self) -> bool {
        other.0.iter().all(|(resource, actions)| {
            self.0.get(resource).is_some_and(|granted| granted.is_superset(actions))
        })
    }

    /// One text per resource.
    pub(crate) fn to_list(&self) -> Vec<String> {
        let text = |(resource, actions): (&String, &BTreeSet<String>)| {
            let actions: Vec<&str> = actions.iter().map(String::as_str).collect();
            if actions.is_empty() {
                resource.clone()
            } else {
                format!("{resource}:{}", actions.join(","))
            }
        };
        self.0.iter().map(text).collect()
    }
}

impl fmt::Display for Scopes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_list().join(" "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_have_one_form_whatever_their_order() {
        let rows = [
            (
                "repository:b:push,pull repository:a:pull",
                "repository:a:pull repository:b:pull,push",
            ),
            ("repository:a:pull repository:a:push", "repository:a:pull,push"),
            ("repository:host:5000/a:pull", "repository:host:5000/a:pull"),
            ("registry:catalog:*", "registry:catalog:*"),
            ("aws", "aws"),
            ("a:b", "a:b"),
            ("  ", ""),
        ];
        for (text, normal) in rows {
            assert_eq!(Scopes::parse(text).to_string(), normal, "{text}");
            assert_eq!(Scopes::parse(normal), Scopes::parse(text), "{text}");
        }
    }

    #[test]
    fn a_push_scope_covers_pull_and_no_other_repository() {
        let push = Scopes::push("a");
        assert!(push.covers(&Scopes::pull("a")));
        assert!(!push.covers(&Scopes::pull("b")));
        assert!(!Scopes::pull("a").covers(&push));
        let both = push.union(&Scopes::pull("b"));
        assert_eq!(both.to_string(), "repository:a:pull,push repository:b:pull");
        assert_eq!(Scopes::push("a").and("b", &["pull"]), both);
    }
}
