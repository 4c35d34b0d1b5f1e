//! How lists and maps of an object merge: by key, as a set, or as a whole.

use std::borrow::Cow;

use serde_json::Value;

/// How a list merges.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListKind<'a> {
    /// As a whole.
    Atomic,
    /// By value.
    Set,
    /// By the values of these fields of its items.
    Map(Cow<'a, [String]>),
}

/// What is known about a place in an object.
#[derive(Clone, Copy, Debug)]
pub enum Shape<'a> {
    /// A structural schema.
    Schema(&'a Value),
    /// A built-in kind: known by the names of its fields.
    BuiltIn,
    /// Nothing: every list is replaced as a whole.
    Opaque,
}

/// Lists of built-in kinds that merge by key.
const LIST_KEYS: &[(&str, &[&str])] = &[
    ("conditions", &["type"]),
    ("containers", &["name"]),
    ("initContainers", &["name"]),
    ("ephemeralContainers", &["name"]),
    ("env", &["name"]),
    ("volumes", &["name"]),
    ("volumeMounts", &["mountPath"]),
    ("volumeDevices", &["devicePath"]),
    ("imagePullSecrets", &["name"]),
    ("hostAliases", &["ip"]),
    ("ownerReferences", &["uid"]),
    ("secrets", &["name"]),
];

/// Maps of built-in kinds that are replaced as a whole.
const ATOMIC_MAPS: &[&str] =
    &["selector", "nodeSelector", "labelSelector", "fieldRef", "secretKeyRef", "configMapKeyRef", "resourceFieldRef"];

impl<'a> Shape<'a> {
    /// The place of a field of this object.
    pub fn field(self, name: &str) -> Shape<'a> {
        match self {
            Self::Schema(schema) => schema
                .get("properties")
                .and_then(|p| p.get(name))
                .or_else(|| schema.get("additionalProperties").filter(|a| a.is_object()))
                .map_or(Self::Opaque, Self::Schema),
            other => other,
        }
    }

    /// The place of an item of this list.
    pub fn item(self) -> Shape<'a> {
        match self {
            Self::Schema(schema) => schema.get("items").map_or(Self::Opaque, Self::Schema),
            other => other,
        }
    }

    /// Default of a field of this object that may be a key of its list.
    pub fn default_of(self, name: &str) -> Option<Value> {
        match self {
            Self::Schema(schema) => schema.get("properties")?.get(name)?.get("default").cloned(),
            Self::BuiltIn if name == "protocol" => Some(Value::from("TCP")),
            _ => None,
        }
    }

    /// How this list, the value of the field `name`, merges.
    pub fn list_kind(self, name: &str, items: &[Value]) -> ListKind<'a> {
        match self {
            Self::Opaque => ListKind::Atomic,
            Self::Schema(schema) => match schema.get("x-kubernetes-list-type").and_then(Value::as_str) {
                Some("set") => ListKind::Set,
                Some("map") => {
                    let keys = schema.get("x-kubernetes-list-map-keys").and_then(Value::as_array);
                    ListKind::Map(keys.into_iter().flatten().filter_map(|k| k.as_str().map(Into::into)).collect())
                }
                _ => ListKind::Atomic,
            },
            Self::BuiltIn if name == "finalizers" => ListKind::Set,
            Self::BuiltIn if name == "ports" => {
                let key = if items.iter().any(|i| i.get("containerPort").is_some()) { "containerPort" } else { "port" };
                ListKind::Map(vec![key.to_owned(), "protocol".to_owned()].into())
            }
            Self::BuiltIn => LIST_KEYS
                .iter()
                .find(|(list, _)| *list == name)
                .map_or(ListKind::Atomic, |(_, keys)| ListKind::Map(keys.iter().map(|k| (*k).to_owned()).collect())),
        }
    }

    /// Whether this map, the value of the field `name`, is replaced as a whole.
    pub fn is_atomic_map(self, name: &str) -> bool {
        match self {
            Self::Opaque => false,
            Self::Schema(schema) => schema.get("x-kubernetes-map-type").and_then(Value::as_str) == Some("atomic"),
            Self::BuiltIn => ATOMIC_MAPS.contains(&name),
        }
    }
}
