//! Reading JSON that others wrote: each number with its digits, and no field twice.

use std::fmt;

use serde::de::{Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, de};
use serde_json::{Map, Number, Value};

/// The name that the JSON library has for the digits of a number. An object with such a field would be taken for
/// a number.
pub(crate) const RESERVED: &str = "$serde_json::private::Number";

/// Reads a value. Of an object that has a field twice, nobody can say which of the two counts.
///
/// # Errors
/// It is not JSON, nests deeper than 128 levels, or has a field twice: that error is one of data, and names the field.
pub(crate) fn read(text: &[u8]) -> Result<Value, serde_json::Error> {
    serde_json::from_slice(text).map(|Strict(value)| value)
}

struct Strict(Value);

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Reader).map(Self)
    }
}

struct Reader;

impl<'de> Visitor<'de> for Reader {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(Value::from(text))
    }

    fn visit_string<E>(self, text: String) -> Result<Value, E> {
        Ok(Value::String(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(Strict(item)) = items.next_element()? {
            list.push(item);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut fields = Map::new();
        while let Some(Name(name)) = entries.next_key()? {
            let Some(name) = name else {
                // The digits of a number come as a map with this one field.
                return entries.next_value().map(|Digits(number)| Value::Number(number));
            };
            if fields.contains_key(&name) {
                return Err(A::Error::custom(format_args!("the field {name:?} is there twice")));
            }
            let Strict(value) = entries.next_value()?;
            fields.insert(name, value);
        }
        Ok(Value::Object(fields))
    }
}

/// The name of a field; `None` for the reserved one.
struct Name(Option<String>);

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;

        impl Visitor<'_> for Reader {
            type Value = Name;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the name of a field")
            }

            fn visit_str<E>(self, name: &str) -> Result<Name, E> {
                Ok(Name((name != RESERVED).then(|| name.to_owned())))
            }
        }
        deserializer.deserialize_str(Reader)
    }
}

/// The digits of a number. The library hands them over as a text of its own, and every text of the input as a
/// borrowed one: so nobody can write a number as an object.
struct Digits(Number);

impl<'de> Deserialize<'de> for Digits {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;

        impl Visitor<'_> for Reader {
            type Value = Digits;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the digits of a number")
            }

            fn visit_str<E: de::Error>(self, _: &str) -> Result<Digits, E> {
                Err(E::custom(format_args!("a field must not be named {RESERVED:?}")))
            }

            fn visit_string<E: de::Error>(self, digits: String) -> Result<Digits, E> {
                digits.parse().map(Digits).map_err(E::custom)
            }
        }
        deserializer.deserialize_any(Reader)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn numbers_keep_their_digits() {
        for text in [
            "0",
            "-0",
            "7.0",
            "12.50",
            "18446744073709551615",
            "18446744073709551616",
            "-9223372036854775809",
            "123456789012345678901234567890123456789012345678901234567890",
            "0.1000000000000000055511151231257827021181583404541015625",
            "1e+400",
            "-2.50e-7",
        ] {
            assert_eq!(read(text.as_bytes()).unwrap().to_string(), text);
            let nested = format!(r#"{{"a":[{text},{{"b":{text}}}]}}"#);
            assert_eq!(read(nested.as_bytes()).unwrap().to_string(), nested);
        }
        assert_eq!(read(b"1E2").unwrap().to_string(), "1e+2");
    }

    #[test]
    fn a_field_that_is_there_twice_is_refused_by_its_name() {
        for text in [r#"{"a":1,"b":2,"a":1}"#, r#"[{"x":{"a":1,"\u0061":2}}]"#] {
            let error = read(text.as_bytes()).unwrap_err();
            assert!(error.is_data());
            assert!(error.to_string().starts_with("the field \"a\" is there twice at line 1"), "{error}");
        }
        assert_eq!(read(br#"{"a":{"a":1},"b":{"a":2}}"#).unwrap(), json!({"a": {"a": 1}, "b": {"a": 2}}));
    }

    #[test]
    fn an_object_is_never_taken_for_a_number() {
        for text in [
            format!(r#"{{"{RESERVED}":"5"}}"#),
            format!(r#"{{"{RESERVED}":5}}"#),
            format!(r#"{{"a":1,"{RESERVED}":"5"}}"#),
            r#"{"\u0024serde_json::private::Number":"\u0035"}"#.to_owned(),
        ] {
            assert!(read(text.as_bytes()).unwrap_err().is_data(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_number_is_written_as_it_was_read(
            text in "-?(0|[1-9][0-9]{0,40})(\\.[0-9]{1,40})?(e[+-][0-9]{1,5})?"
        ) {
            prop_assert_eq!(read(text.as_bytes()).unwrap().to_string(), text);
        }

        #[test]
        fn what_has_no_field_twice_is_read_as_everybody_reads_it(text in "[\\[\\]{}:,\"0-9a-c.e -]{0,40}") {
            if let Ok(value) = read(text.as_bytes()) {
                prop_assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), value);
            }
        }
    }
}
