//! Server-side apply: merge what a manager wants, remove what it no longer wants, refuse what others own.

use serde_json::Value;

use super::fail::{self, Answer};
use super::fields::{self, FieldSet, Managed, Writer};
use super::shape::{ListKind, Shape};

/// The object after `config` is applied to `live` (`None`: there is none yet), with its managed fields.
///
/// # Errors
/// 409 when another manager owns a field that would change, unless `force`.
pub fn apply(live: Option<&Value>, config: &Value, writer: Writer<'_>, force: bool, api_version: &str, shape: Shape<'_>) -> Answer<Value> {
    let mut config = config.clone();
    drop_nulls(&mut config);
    let wanted = fields::leaves(&config, shape);
    let mut managed = live.map(fields::read_managed).unwrap_or_default();
    let is_own = |m: &Managed| m.apply && m.manager == writer.manager && m.subresource == writer.subresource;

    let changed: FieldSet = match live {
        None => wanted.clone(),
        Some(live) => wanted.iter().filter(|p| fields::get(live, p) != fields::get(&config, p)).cloned().collect(),
    };
    let conflicts: Vec<(String, String)> = managed
        .iter()
        .filter(|m| !is_own(m))
        .flat_map(|m| m.fields.intersection(&changed).map(|p| (m.manager.clone(), fields::display(p))))
        .collect();
    if !force && !conflicts.is_empty() {
        return Err(fail::apply_conflict(&conflicts));
    }

    let mut object = live.cloned().unwrap_or_else(|| config.clone());
    if live.is_some() {
        merge(&mut object, &config, shape, "");
    }
    let before = managed.iter().find(|m| is_own(m)).map(|m| m.fields.clone()).unwrap_or_default();
    remove_unwanted(&mut object, &before, &wanted, managed.iter().filter(|m| !is_own(m)));

    for entry in managed.iter_mut().filter(|m| !is_own(m)) {
        entry.fields.retain(|p| !changed.contains(p) && fields::get(&object, p).is_some());
    }
    let time = fields::seconds(writer.now);
    match managed.iter_mut().find(|m| is_own(m)) {
        Some(own) => {
            if own.fields != wanted || !changed.is_empty() {
                own.time = time;
            }
            own.fields = wanted;
        }
        None => managed.push(Managed {
            manager: writer.manager.into(),
            apply: true,
            subresource: writer.subresource.into(),
            time,
            fields: wanted,
        }),
    }
    fields::write_managed(&mut object, api_version, &managed);
    Ok(object)
}

/// Removes the fields this manager applied before and does not want now, where nobody else owns them.
fn remove_unwanted<'a>(object: &mut Value, before: &FieldSet, wanted: &FieldSet, others: impl Iterator<Item = &'a Managed> + Clone) {
    // A list item comes before its fields: it goes as a whole, while its key is still there to find it by.
    for path in before.difference(wanted) {
        let kept = wanted.iter().any(|p| p.starts_with(path)) || others.clone().any(|m| m.fields.iter().any(|p| p.starts_with(path)));
        if !kept {
            fields::remove(object, path);
        }
    }
}

fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|_, v| !v.is_null());
            map.values_mut().for_each(drop_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}

fn merge(target: &mut Value, config: &Value, shape: Shape<'_>, name: &str) {
    match (target, config) {
        (Value::Object(target), Value::Object(config)) if !shape.is_atomic_map(name) => {
            for (name, value) in config {
                let shape = if name == "metadata" { Shape::BuiltIn } else { shape.field(name) };
                match target.get_mut(name) {
                    Some(existing) => merge(existing, value, shape, name),
                    None => {
                        target.insert(name.clone(), value.clone());
                    }
                }
            }
        }
        (Value::Array(target), Value::Array(config)) => match shape.list_kind(name, config) {
            ListKind::Atomic => target.clone_from(config),
            ListKind::Set => {
                for item in config {
                    if !target.contains(item) {
                        target.push(item.clone());
                    }
                }
            }
            ListKind::Map(keys) => {
                for item in config {
                    let key = fields::key_of(item, &keys, shape.item());
                    match target.iter_mut().find(|t| fields::key_of(t, &keys, shape.item()) == key) {
                        Some(existing) => merge(existing, item, shape.item(), ""),
                        None => target.push(item.clone()),
                    }
                }
            }
        },
        (target, config) => target.clone_from(config),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::Timestamp;
    use serde_json::json;

    fn by(manager: &str) -> Writer<'_> {
        Writer { manager, subresource: "", now: Timestamp::UNIX_EPOCH }
    }

    #[test]
    fn a_field_left_out_of_a_later_apply_goes_away_and_a_foreign_one_stays() {
        let shape = Shape::BuiltIn;
        let first = json!({"metadata": {"name": "x", "labels": {"a": "1", "b": "1"}}, "spec": {"ports": [{"port": 1, "protocol": "TCP"}]}});
        let live = apply(None, &first, by("one"), false, "v1", shape).unwrap();
        let mine = json!({"metadata": {"name": "x", "labels": {"c": "1"}}, "spec": {"ports": [{"port": 2, "protocol": "TCP"}]}});
        let live = apply(Some(&live), &mine, by("two"), false, "v1", shape).unwrap();
        let less = json!({"metadata": {"name": "x", "labels": {"a": "1"}}});
        let live = apply(Some(&live), &less, by("one"), false, "v1", shape).unwrap();
        assert_eq!(live["metadata"]["labels"], json!({"a": "1", "c": "1"}));
        assert_eq!(live["spec"]["ports"], json!([{"port": 2, "protocol": "TCP"}]));
    }

    #[test]
    fn another_managers_field_is_refused_without_force_and_taken_with_it() {
        let live = apply(None, &json!({"metadata": {}, "spec": {"a": 1}}), by("one"), false, "v1", Shape::Opaque).unwrap();
        let other = json!({"metadata": {}, "spec": {"a": 2}});
        let refused = apply(Some(&live), &other, by("two"), false, "v1", Shape::Opaque).unwrap_err();
        assert_eq!((refused.code, refused.reason.as_str()), (409, "Conflict"));
        let taken = apply(Some(&live), &other, by("two"), true, "v1", Shape::Opaque).unwrap();
        assert_eq!(taken["spec"]["a"], 2);
    }
}
