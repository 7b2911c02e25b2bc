use crate::csv::{self, CsvError};
use crate::suggest;

/// `RUN --device`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Device {
    /// The CDI name, class or wildcard.
    pub name: String,
    /// Whether the step fails without it.
    pub required: bool,
}

/// A `RUN --device` that makes no sense.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeviceError {
    /// Not comma-separated values.
    #[error("invalid --device: {0}")]
    Csv(#[from] CsvError),
    /// A second word that is no option.
    #[error("invalid field '{field}' must be a key=value pair")]
    NotAPair {
        /// The word.
        field: String,
    },
    /// Two names.
    #[error("device name already set to {name}")]
    RepeatedName {
        /// The first one.
        name: String,
    },
    /// Not a boolean.
    #[error("invalid value for required: {value}")]
    NotBoolean {
        /// What was given.
        value: String,
    },
    /// An option that is not known.
    #[error("unexpected key '{key}' in '{field}'")]
    UnknownKey {
        /// The option.
        key: String,
        /// The whole field.
        field: String,
        /// The option probably meant.
        suggestion: Option<String>,
    },
}

impl DeviceError {
    pub(crate) fn suggestion(&self) -> Option<&str> {
        match self {
            Self::UnknownKey { suggestion, .. } => suggestion.as_deref(),
            _ => None,
        }
    }
}

impl Device {
    /// Parses `name[,required[=…]]` or `name=…`; a name may contain an equals sign.
    pub(crate) fn parse(text: &str) -> Result<Self, DeviceError> {
        let mut device = Self::default();
        for field in csv::fields(text)? {
            let (key, value) = match field.split_once('=') {
                Some((key, value)) => (key.to_lowercase(), Some(value)),
                None => (field.to_lowercase(), None),
            };
            match (key.as_str(), value) {
                ("required", None) => device.required = true,
                ("required", Some(value)) => {
                    device.required = super::mount::boolean(value)
                        .ok_or_else(|| DeviceError::NotBoolean { value: value.to_owned() })?;
                }
                ("name", Some(value)) if device.name.is_empty() => {
                    value.clone_into(&mut device.name);
                }
                ("name", Some(_)) => return Err(DeviceError::RepeatedName { name: device.name }),
                (_, _) if device.name.is_empty() => device.name = field,
                (_, None) => return Err(DeviceError::NotAPair { field }),
                (_, Some(_)) => {
                    let suggestion =
                        suggest::closest(&key, ["name", "required"]).map(str::to_owned);
                    return Err(DeviceError::UnknownKey { key, field, suggestion });
                }
            }
        }
        Ok(device)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_a_name_with_options() {
        let cases = [
            ("vendor.com/gpu=0", "vendor.com/gpu=0", false),
            ("vendor.com/gpu,required", "vendor.com/gpu", true),
            ("required,name=vendor.com/gpu", "vendor.com/gpu", true),
            ("vendor.com/gpu,required=false", "vendor.com/gpu", false),
        ];
        for (text, name, required) in cases {
            let device = Device { name: name.to_owned(), required };
            assert_eq!(Device::parse(text), Ok(device), "{text}");
        }
    }

    #[test]
    fn mistakes_are_named() {
        let cases = [
            ("", "invalid --device: the value is empty"),
            ("a,b", "invalid field 'b' must be a key=value pair"),
            ("a,name=b", "device name already set to a"),
            ("a,required=x", "invalid value for required: x"),
            ("a,requird=1", "unexpected key 'requird' in 'requird=1'"),
        ];
        for (text, message) in cases {
            assert_eq!(Device::parse(text).unwrap_err().to_string(), message, "{text}");
        }
    }
}
