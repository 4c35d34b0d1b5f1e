//! Watches.

use std::time::Duration;

use futures::{Stream, StreamExt};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::ResourceExt;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, WatchEvent, WatchParams};
use serde_json::json;

use super::{Env, Outcome, did, same};

crate::cases!(
    watch_tells_of_every_change,
    watch_follows_objects_in_and_out_of_a_selection,
    watch_from_zero_starts_with_what_there_is,
    watch_from_a_version_starts_after_it,
    watch_ends_at_its_timeout,
    watch_is_silent_about_writes_that_change_nothing,
    watch_can_start_with_everything,
);

type Events = std::pin::Pin<Box<dyn Stream<Item = kube::Result<WatchEvent<ConfigMap>>> + Send>>;

async fn watch(env: &Env, params: WatchParams, version: &str) -> Result<Events, String> {
    Ok(did("watch", env.config_maps().watch(&params, version).await)?.boxed())
}

/// The next event as `ADDED name`, bookmarks left out.
async fn next(events: &mut Events) -> Result<String, String> {
    loop {
        let event = tokio::time::timeout(Duration::from_secs(20), events.next()).await;
        return Ok(match event.map_err(|_| "no event within 20 s")? {
            None => "end".into(),
            Some(Err(e)) => return Err(e.to_string()),
            Some(Ok(WatchEvent::Added(o))) => format!("ADDED {}", o.name_any()),
            Some(Ok(WatchEvent::Modified(o))) => format!("MODIFIED {}", o.name_any()),
            Some(Ok(WatchEvent::Deleted(o))) => format!("DELETED {}", o.name_any()),
            Some(Ok(WatchEvent::Bookmark(_))) => continue,
            Some(Ok(WatchEvent::Error(s))) => format!("ERROR {}", s.code),
        });
    }
}

async fn newest(env: &Env) -> Result<String, String> {
    let list = did("list", env.config_maps().list(&ListParams::default()).await)?;
    Ok(list.metadata.resource_version.unwrap_or_default())
}

async fn set(env: &Env, name: &str, patch: serde_json::Value) -> Outcome {
    did("patch", env.config_maps().patch(name, &PatchParams::default(), &Patch::Merge(patch)).await).map(drop)
}

async fn watch_tells_of_every_change(env: &Env) -> Outcome {
    let version = newest(env).await?;
    let mut events = watch(env, WatchParams::default().labels("watched=all").timeout(60), &version).await?;
    env.config_map("watched", json!({"watched": "all"})).await?;
    same("first", next(&mut events).await?, "ADDED watched".into())?;
    set(env, "watched", json!({"data": {"a": "2"}})).await?;
    same("second", next(&mut events).await?, "MODIFIED watched".into())?;
    did("delete", env.config_maps().delete("watched", &DeleteParams::default()).await)?;
    same("third", next(&mut events).await?, "DELETED watched".into())
}

async fn watch_follows_objects_in_and_out_of_a_selection(env: &Env) -> Outcome {
    env.config_map("mover", json!({"move": "out"})).await?;
    let version = newest(env).await?;
    let mut events = watch(env, WatchParams::default().labels("move=in").timeout(60), &version).await?;
    set(env, "mover", json!({"metadata": {"labels": {"move": "in"}}})).await?;
    same("entering", next(&mut events).await?, "ADDED mover".into())?;
    set(env, "mover", json!({"data": {"a": "2"}})).await?;
    same("inside", next(&mut events).await?, "MODIFIED mover".into())?;
    set(env, "mover", json!({"metadata": {"labels": {"move": "out"}}})).await?;
    same("leaving", next(&mut events).await?, "DELETED mover".into())
}

async fn watch_from_zero_starts_with_what_there_is(env: &Env) -> Outcome {
    env.config_map("there", json!({"zero": "yes"})).await?;
    let mut events = watch(env, WatchParams::default().labels("zero=yes").timeout(60), "0").await?;
    same("first", next(&mut events).await?, "ADDED there".into())
}

async fn watch_from_a_version_starts_after_it(env: &Env) -> Outcome {
    let first = env.config_map("after-1", json!({"after": "yes"})).await?;
    env.config_map("after-2", json!({"after": "yes"})).await?;
    let version = first.resource_version().unwrap_or_default();
    let mut events = watch(env, WatchParams::default().labels("after=yes").timeout(60), &version).await?;
    same("first", next(&mut events).await?, "ADDED after-2".into())
}

async fn watch_ends_at_its_timeout(env: &Env) -> Outcome {
    let version = newest(env).await?;
    let events = watch(env, WatchParams::default().labels("never=ever").timeout(4), &version).await?;
    let collected = tokio::time::timeout(Duration::from_secs(20), events.collect::<Vec<_>>()).await;
    let events = collected.map_err(|_| "the watch did not end within 20 s")?;
    let bookmarks = events.iter().filter(|e| matches!(e, Ok(WatchEvent::Bookmark(_)))).count();
    same("events other than bookmarks", events.len() - bookmarks, 0)
}

async fn watch_is_silent_about_writes_that_change_nothing(env: &Env) -> Outcome {
    env.config_map("quiet", json!({"quiet": "yes"})).await?;
    let version = newest(env).await?;
    let mut events = watch(env, WatchParams::default().labels("quiet=yes").timeout(60), &version).await?;
    set(env, "quiet", json!({"data": {"a": "1"}})).await?;
    set(env, "quiet", json!({"data": {"a": "2"}})).await?;
    did("delete", env.config_maps().delete("quiet", &DeleteParams::default()).await)?;
    same("first", next(&mut events).await?, "MODIFIED quiet".into())?;
    same("second", next(&mut events).await?, "DELETED quiet".into())
}

async fn watch_can_start_with_everything(env: &Env) -> Outcome {
    env.config_map("streamed", json!({"streamed": "yes"})).await?;
    let params = WatchParams::default().labels("streamed=yes").timeout(60).initial_events();
    let mut events = watch(env, params, "0").await?;
    same("first", next(&mut events).await?, "ADDED streamed".into())?;
    let event = tokio::time::timeout(Duration::from_secs(20), events.next()).await.map_err(|_| "nothing within 20 s")?;
    let Some(Ok(WatchEvent::Bookmark(mark))) = event else { return Err(format!("not a bookmark: {event:?}")) };
    let end = mark.metadata.annotations.get("k8s.io/initial-events-end").map(String::as_str);
    same("annotation of the bookmark", end, Some("true"))
}
