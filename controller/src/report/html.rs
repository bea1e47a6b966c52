//! A report as one HTML page that needs nothing else: styles and plots are inside, and there is no script.

use super::blocks::{ReportBlock, ReportSection};
use super::escape::text;
use super::evidence::ReportEvidence;
use super::plot;
use std::fmt::Write;

/// The styles, which the page contains.
const STYLES: &str = include_str!("report.css");

/// The whole report as one HTML page.
pub(super) fn page(
    title: &str,
    evidence: &ReportEvidence,
    sections: &[ReportSection<'_>],
) -> String {
    let title = text(title);
    let evidence = text(&evidence.to_string());
    let mut out = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n\
         <meta name=\"backburn-report\" content=\"{evidence}\">\n\
         <title>{title}</title>\n<style>{STYLES}</style></head><body><main>\n<h1>{title}</h1>\n"
    );
    for (number, section) in sections.iter().enumerate() {
        write_section(&mut out, number + 1, section);
    }
    out.push_str("</main></body></html>\n");
    out
}

fn write_section(out: &mut String, number: usize, section: &ReportSection<'_>) {
    // Writing to a string cannot fail.
    writeln!(out, "<section><h2>{number}. {}</h2>", section.title).ok();
    for block in &section.blocks {
        write_block(out, block);
    }
    out.push_str("</section>\n");
}

fn write_block(out: &mut String, block: &ReportBlock<'_>) {
    // Writing to a string cannot fail.
    match block {
        ReportBlock::Text(words) => writeln!(out, "<p>{}</p>", text(words)).ok(),
        ReportBlock::Outcome(tone, words) => {
            writeln!(out, "<p class=\"outcome {tone}\">{}</p>", text(words)).ok()
        }
        ReportBlock::List(lines) => {
            out.push_str("<ul>\n");
            for line in lines {
                writeln!(out, "<li>{}</li>", text(line)).ok();
            }
            writeln!(out, "</ul>").ok()
        }
        ReportBlock::Table { head, rows } => {
            out.push_str("<div class=\"table\"><table><thead><tr>");
            for cell in *head {
                write!(out, "<th>{cell}</th>").ok();
            }
            out.push_str("</tr></thead><tbody>\n");
            for row in rows {
                match row.tone {
                    "plain" => write!(out, "<tr>").ok(),
                    tone => write!(out, "<tr class=\"{tone}\">").ok(),
                };
                for cell in &row.cells {
                    write!(out, "<td>{}</td>", text(cell)).ok();
                }
                out.push_str("</tr>\n");
            }
            writeln!(out, "</tbody></table></div>").ok()
        }
        ReportBlock::Plot(shown, hits, seconds) => {
            let (name, sentence) = (text(&shown.probe), text(&plot::sentence(shown)));
            writeln!(
                out,
                "<figure><figcaption><b>{name}</b> {sentence}</figcaption>"
            )
            .ok();
            plot::svg(out, shown, hits, *seconds);
            writeln!(out, "</figure>").ok()
        }
        ReportBlock::Code(words) => writeln!(out, "<pre>{}</pre>", text(words)).ok(),
    };
}
