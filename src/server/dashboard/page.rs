//! The page: a few files, part of the program.

use axum::Router;
use axum::http::header;
use axum::response::Redirect;
use axum::routing::get;

/// Below `/dashboard/`: name, media type, text.
pub(super) const FILES: [(&str, &str, &str); 8] = [
    ("style.css", "text/css; charset=utf-8", include_str!("page/style.css")),
    ("app.js", SCRIPT, include_str!("page/app.js")),
    ("net.js", SCRIPT, include_str!("page/net.js")),
    ("dom.js", SCRIPT, include_str!("page/dom.js")),
    ("list.js", SCRIPT, include_str!("page/list.js")),
    ("detail.js", SCRIPT, include_str!("page/detail.js")),
    ("charts.js", SCRIPT, include_str!("page/charts.js")),
    ("actions.js", SCRIPT, include_str!("page/actions.js")),
];
const SCRIPT: &str = "text/javascript; charset=utf-8";
const INDEX: &str = include_str!("page/index.html");

/// The routes of the page.
pub fn routes() -> Router {
    let index = || async { ([(header::CONTENT_TYPE, "text/html; charset=utf-8")], INDEX) };
    let router = Router::new()
        .route("/", get(|| async { Redirect::temporary("/dashboard") }))
        .route("/dashboard", get(index))
        .route("/dashboard/", get(index));
    FILES.into_iter().fold(router, |router, (name, kind, text)| {
        router.route(&format!("/dashboard/{name}"), get(move || async move { ([(header::CONTENT_TYPE, kind)], text) }))
    })
}
