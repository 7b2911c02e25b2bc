//! Filters on disk usage, in containerd's syntax as far as BuildKit gives it a meaning.
//!
//! Fields are `id`, `parents`, `description`, `type`, `inuse`, `mutable`, `immutable`, `shared` and
//! `private`.

use std::{fmt, str::FromStr};

use super::{Usage, UsageId};
use crate::filter::{self, InvalidFilter, Selection};
use crate::record_type::RecordType;

/// Selects rows of disk usage.
#[derive(Clone, Debug)]
pub struct Filter(Selection<Field>);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Field {
    Id,
    Parents,
    Description,
    Type,
    InUse,
    Mutable,
    Immutable,
    Shared,
    Private,
}

impl Filter {
    /// Whether the filter selects `usage`.
    pub fn matches(&self, usage: &Usage) -> bool {
        self.0.matches(|field| field.of(usage))
    }

    /// One filter for each type of data that is cheapest to make again.
    pub(super) fn easily_remade() -> Vec<Self> {
        [RecordType::LocalSource, RecordType::CacheMount, RecordType::GitCheckout]
            .map(|record_type| Self(Selection::equal(Field::Type, record_type.as_str())))
            .into()
    }
}

impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Filter {
    type Err = InvalidFilter;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}

impl filter::Field for Field {
    const ALL: &'static str =
        "id, parents, description, type, inuse, mutable, immutable, shared and private";

    fn named(name: &str) -> Option<Self> {
        Some(match name {
            "id" => Self::Id,
            "parents" | "parent" => Self::Parents,
            "description" => Self::Description,
            "type" => Self::Type,
            "inuse" => Self::InUse,
            "mutable" => Self::Mutable,
            "immutable" => Self::Immutable,
            "shared" => Self::Shared,
            "private" => Self::Private,
            _ => return None,
        })
    }

    fn name(self) -> &'static str {
        match self {
            Self::Id => "id",
            Self::Parents => "parents",
            Self::Description => "description",
            Self::Type => "type",
            Self::InUse => "inuse",
            Self::Mutable => "mutable",
            Self::Immutable => "immutable",
            Self::Shared => "shared",
            Self::Private => "private",
        }
    }
}

impl Field {
    /// The field's value, `None` if it is absent. One that is true is present and empty.
    fn of(self, usage: &Usage) -> Option<String> {
        let claim = |is_so: bool| is_so.then(String::new);
        match self {
            Self::Id => Some(usage.id.to_string()),
            Self::Parents => {
                let parents: Vec<_> = usage.parents.iter().map(UsageId::to_string).collect();
                (!parents.is_empty()).then(|| parents.join(";"))
            }
            Self::Description => (!usage.description.is_empty()).then(|| usage.description.clone()),
            Self::Type => Some(usage.record_type.as_str().to_owned()),
            Self::InUse => claim(usage.in_use),
            Self::Mutable => claim(usage.mutable),
            Self::Immutable => claim(!usage.mutable),
            Self::Shared => claim(usage.shared),
            Self::Private => claim(!usage.shared),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::{
        filter::{Field as _, Reason},
        *,
    };
    use crate::layer::LayerId;

    fn usage() -> Usage {
        Usage {
            id: UsageId::Layer(LayerId(42)),
            parents: vec![UsageId::Layer(LayerId(1)), UsageId::Layer(LayerId(2))],
            in_use: false,
            shared: true,
            mutable: false,
            size: 0,
            created_at: SystemTime::UNIX_EPOCH,
            last_used_at: None,
            usage_count: 0,
            description: "mount / from exec \"apt\", 2".to_owned(),
            record_type: RecordType::CacheMount,
        }
    }

    #[test]
    fn a_filter_selects_what_all_its_selectors_match() {
        let table = [
            ("", true),
            ("id==00000000002a", true),
            ("id==2a", false),
            ("id~=2a", true),
            ("id~=^2a", false),
            ("parents~=000000000002$", true),
            ("parent==000000000001;000000000002", true),
            ("type==exec.cachemount", true),
            ("type == exec.cachemount", true),
            ("type==regular", false),
            ("type!=regular", true),
            ("inuse", false),
            ("inuse!=x", true),
            ("shared", true),
            ("private", false),
            ("immutable,shared", true),
            ("immutable, mutable", false),
            ("description~=exec", true),
            (r#"description=="mount / from exec \"apt\", 2""#, true),
            (r"description~='apt., \\d'", true),
            (r"description~=/mount \/ from/", true),
            ("description~=|apt., \\d$|", true),
        ];
        for (text, expected) in table {
            assert_eq!(text.parse::<Filter>().unwrap().matches(&usage()), expected, "{text}");
        }
    }

    #[test]
    fn what_is_wrong_with_a_filter_is_said_where_it_is() {
        let table = [
            ("=x", Reason::NoField, "=x"),
            ("size==1", Reason::UnknownField(Field::ALL), "==1"),
            ("id=1", Reason::NoOperator, "1"),
            ("id==", Reason::NoValue, ""),
            ("id==1,", Reason::NoField, ","),
            ("id==1 2", Reason::NoComma, "2"),
            ("id==\"1", Reason::BadQuote, "\"1"),
            ("id~=(", Reason::BadRegex, ""),
            ("id==/a/,x", Reason::UnknownField(Field::ALL), ""),
        ];
        for (text, reason, rest) in table {
            let error = text.parse::<Filter>().unwrap_err();
            assert_eq!((error.reason, error.rest.as_str()), (reason, rest), "{text}: {error}");
        }
    }
}
