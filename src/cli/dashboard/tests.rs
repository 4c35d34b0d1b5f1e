use std::convert::Infallible;
use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::body::Body;
use http::{Request, Response};
use parking_lot::Mutex;
use serde_json::json;

use super::*;

#[test]
fn the_way_in_is_a_file_that_only_the_person_can_read_and_it_goes() {
    let place = tempfile::tempdir().unwrap();
    let url = "http://127.0.0.1:7000/dashboard#token=the-secret";
    let door = Door::at(&place.path().join("way-in"), url).unwrap();
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&door.folder), mode(&door.file)), (0o700, 0o600));
    let page = std::fs::read_to_string(&door.file).unwrap();
    assert!(page.contains(&format!("location.replace(\"{url}\")")), "{page}");
    assert!(!door.file.display().to_string().contains("secret"));
    assert!(Door::at(&door.folder, url).is_err(), "what another one has put there is not used");
    drop(door);
    assert_eq!(std::fs::read_dir(place.path()).unwrap().count(), 0);
}

/// An API server that always lists, and lets watch when it is told to.
fn listing(watchable: Arc<AtomicBool>) -> Client {
    let service = tower::service_fn(move |request: Request<kube::client::Body>| {
        let watched = request.uri().query().unwrap_or_default().contains("watch=");
        let refused = watched && !watchable.load(Ordering::Relaxed);
        async move {
            let message = r#"voicerollouts is forbidden: User "jane" cannot watch resource "voicerollouts""#;
            let failure =
                json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 403, "reason": "Forbidden", "message": message});
            let (code, body) = match (watched, refused) {
                (_, true) => (403, Body::from(failure.to_string())),
                (true, false) => (200, Body::from_stream(futures::stream::pending::<Result<bytes::Bytes, Infallible>>())),
                (false, _) => (200, Body::from(json!({"metadata": {"resourceVersion": "7"}, "items": []}).to_string())),
            };
            Ok::<_, Infallible>(Response::builder().status(code).body(body).unwrap())
        }
    });
    Client::new(service, "voice")
}

#[tokio::test(start_paused = true)]
async fn a_list_that_cannot_be_followed_is_not_taken_for_the_truth() {
    let watchable = Arc::new(AtomicBool::new(false));
    let (board, out) = (Board::default(), Mutex::new(Vec::new()));
    let said = || String::from_utf8(out.lock().clone()).unwrap();
    let (listed, mut lists) = tokio::sync::watch::channel(0);
    let api = scoped::<Guarded<VoiceRollout>>(&listing(watchable.clone()), Some("voice"));
    let take = |event: &watcher::Event<_>| listed.send_modify(|n| *n += i32::from(matches!(event, watcher::Event::InitDone)));
    let following = follow(api, take, |why| told(&board, "VoiceRollouts", why, &mut *out.lock()));
    let looking = async {
        tokio::time::sleep(10 * RETRY).await;
        assert_eq!(*lists.borrow_and_update(), 1);
        let trouble = board.trouble().unwrap();
        assert!(trouble.starts_with("VoiceRollouts: watch: ") && trouble.contains("cannot watch resource"), "{trouble}");
        assert_eq!(said(), format!("what the dashboard shows may be old: {trouble}\n"), "once");
        watchable.store(true, Ordering::Relaxed);
        lists.changed().await.unwrap();
        tokio::task::yield_now().await;
        assert_eq!(board.trouble(), None);
        assert!(said().ends_with("\nVoiceRollouts are followed again\n"), "{}", said());
        tokio::time::sleep(10 * RETRY).await;
        assert_eq!((board.trouble(), *lists.borrow()), (None, 2));
    };
    tokio::select! {
        () = following => unreachable!("it goes on for ever"),
        () = looking => {}
    }
}
