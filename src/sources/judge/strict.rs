//! JSON that says each thing once. With a doubled key readers differ in which one they take.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// Parses JSON; `None` for anything else, and for objects that name a key twice.
pub(super) fn parse(text: &[u8]) -> Option<Value> {
    serde_json::from_slice::<Once>(text).ok().map(|o| o.0)
}

struct Once(Value);

impl<'de> Deserialize<'de> for Once {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(Reader)
    }
}

struct Reader;

impl<'de> Visitor<'de> for Reader {
    type Value = Once;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON without doubled keys")
    }

    fn visit_bool<E>(self, v: bool) -> Result<Once, E> {
        Ok(Once(v.into()))
    }

    fn visit_i64<E>(self, v: i64) -> Result<Once, E> {
        Ok(Once(v.into()))
    }

    fn visit_u64<E>(self, v: u64) -> Result<Once, E> {
        Ok(Once(v.into()))
    }

    fn visit_f64<E>(self, v: f64) -> Result<Once, E> {
        Ok(Once(Number::from_f64(v).map_or(Value::Null, Value::Number)))
    }

    fn visit_str<E>(self, v: &str) -> Result<Once, E> {
        Ok(Once(v.into()))
    }

    fn visit_unit<E>(self) -> Result<Once, E> {
        Ok(Once(Value::Null))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Once, A::Error> {
        let mut items = Vec::new();
        while let Some(Once(item)) = seq.next_element()? {
            items.push(item);
        }
        Ok(Once(Value::Array(items)))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Once, A::Error> {
        let mut fields = Map::new();
        while let Some(key) = map.next_key::<String>()? {
            let Once(value) = map.next_value()?;
            if fields.insert(key, value).is_some() {
                return Err(A::Error::custom("a key occurs twice"));
            }
        }
        Ok(Once(Value::Object(fields)))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn plain_json_is_read_as_it_is() {
        let value = json!({"a": [1, -2, 0.5, null, true, "x\n"], "b": {"a": {}}});
        assert_eq!(parse(value.to_string().as_bytes()), Some(value));
        for bad in ["", "{", "{\"a\":1}x", "{\"a\":1,\"a\":1}", "[{\"b\":{\"c\":1,\"d\":2,\"c\":3}}]", "{\"a\":1,\"\\u0061\":2}", "NaN"] {
            assert_eq!(parse(bad.as_bytes()), None, "{bad}");
        }
        assert_eq!(parse("[".repeat(100_000).as_bytes()), None, "nesting is bounded");
    }
}
