//! The files of the page, and the answers that carry them.

use axum::Router;
use axum::extract::Path;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use backburn_experiments::hexadecimal;
use sha2::{Digest as _, Sha256};

/// A file of the page.
struct Asset {
    name: &'static str,
    bytes: &'static [u8],
}

macro_rules! assets {
    ($($name:literal),* $(,)?) => {
        &[$(Asset { name: $name, bytes: include_bytes!(concat!("assets/", $name)) }),*]
    };
}

/// The file that is served at `/`.
const SHELL: &str = "index.html";

/// All files. Nothing else is served.
const ASSETS: &[Asset] = assets![
    "index.html",
    "style.css",
    "actions.js",
    "api.js",
    "app.js",
    "approvals.js",
    "audit.js",
    "charts.js",
    "dom.js",
    "experiments.js",
    "fleet.js",
    "game_days.js",
    "halt.js",
    "icon.svg",
    "notes.js",
    "overview.js",
    "run.js",
    "run_model.js",
    "runs.js",
    "schedules.js",
    "series.js",
    "settings.js",
    "sign_in.js",
    "uplot.js",
    "uplot.css",
    "uplot.LICENSE",
];

/// Only files and requests of the page's own origin, no inline script or style, and no text that becomes markup.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'";

/// The routes of the page: `/` and `/assets/NAME`.
pub fn routes<S: Clone + Send + Sync + 'static>() -> Router<S> {
    let shell = async |headers: HeaderMap| answer(SHELL, &headers);
    let asset = async |Path(name): Path<String>, headers: HeaderMap| answer(&name, &headers);
    Router::new()
        .route("/", get(shell))
        .route("/assets/{name}", get(asset))
}

/// The answer with this file, or without it if the browser has the same one.
fn answer(name: &str, asked: &HeaderMap) -> Response {
    let Some(asset) = ASSETS.iter().find(|asset| asset.name == name) else {
        return (StatusCode::NOT_FOUND, "the page has no such file\n").into_response();
    };
    let etag = etag(asset.bytes);
    let is_same = (asked.get_all(header::IF_NONE_MATCH).iter())
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|value| value.trim().trim_start_matches("W/") == etag);
    let mut response = match is_same {
        true => StatusCode::NOT_MODIFIED.into_response(),
        false => asset.bytes.into_response(),
    };
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_TYPE, content_type(asset.name)),
        (header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-cache"),
        (
            HeaderName::from_static("cross-origin-opener-policy"),
            "same-origin",
        ),
        (
            HeaderName::from_static("cross-origin-resource-policy"),
            "same-origin",
        ),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    if let Ok(etag) = HeaderValue::from_str(&etag) {
        headers.insert(header::ETAG, etag);
    }
    response
}

/// What tells one version of a file from another.
fn etag(bytes: &[u8]) -> String {
    let digest = hexadecimal(Sha256::digest(bytes));
    format!("\"{}\"", digest.get(..24).unwrap_or(&digest))
}

fn content_type(name: &str) -> &'static str {
    match name.rsplit_once('.').map(|(_, extension)| extension) {
        Some("html") => "text/html; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("svg") => "image/svg+xml",
        Some("js") => "text/javascript; charset=utf-8",
        _ => "text/plain; charset=utf-8",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The most that all files may come to, in bytes; they are not compressed.
    const MAX_PAGE_BYTES: usize = 190_000;
    /// The file `dist/uPlot.iife.min.js` of the npm package `uplot` 1.6.32.
    const UPLOT_ETAG: &str = "\"19c8d4c6ad88929a79f4ae49\"";

    fn text(asset: &Asset) -> &'static str {
        std::str::from_utf8(asset.bytes).unwrap()
    }

    #[test]
    fn page_is_small() {
        let bytes: usize = ASSETS.iter().map(|asset| asset.bytes.len()).sum();
        assert!(bytes < MAX_PAGE_BYTES, "{bytes}");
    }

    #[test]
    fn page_every_file_of_the_folder_is_served_and_every_import_exists() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/page/assets");
        let mut files: Vec<String> = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        let mut served: Vec<&str> = ASSETS.iter().map(|asset| asset.name).collect();
        files.sort();
        served.sort_unstable();
        assert_eq!(files, served);
        for asset in ASSETS.iter().filter(|asset| asset.name.ends_with(".js")) {
            for line in text(asset)
                .lines()
                .filter(|line| line.starts_with("import"))
            {
                let (_, from) = line.split_once("'./").unwrap_or_else(|| panic!("{line}"));
                let name = from.split('\'').next().unwrap();
                assert!(served.contains(&name), "{}: {line}", asset.name);
            }
        }
    }

    #[test]
    fn page_shell_loads_all_modules_at_once() {
        let shell = ASSETS.iter().find(|asset| asset.name == SHELL).unwrap();
        let modules = ASSETS.iter().filter(|asset| asset.name.ends_with(".js"));
        for module in modules {
            let link = format!("href=\"/assets/{}\"", module.name);
            let script = format!("src=\"/assets/{}\"", module.name);
            let text = text(shell);
            assert!(text.contains(&link) || text.contains(&script), "{link}");
        }
    }

    #[test]
    fn page_has_no_markup_from_text_and_nothing_from_elsewhere() {
        for asset in ASSETS {
            let text = text(asset);
            if !asset.name.starts_with("uplot") && asset.name != "icon.svg" {
                for word in [
                    "innerHTML",
                    "outerHTML",
                    "insertAdjacent",
                    "document.write",
                    "eval(",
                    "style=",
                    "onclick=",
                    "://",
                ] {
                    assert!(!text.contains(word), "{}: {word}", asset.name);
                }
            }
        }
    }

    #[test]
    fn uplot_is_the_file_of_its_package() {
        let uplot = ASSETS
            .iter()
            .find(|asset| asset.name == "uplot.js")
            .unwrap();
        assert_eq!(etag(uplot.bytes), UPLOT_ETAG);
    }
}
