"""The style of the page: system fonts only, one accent colour, and a light and a dark scheme."""

import gradio as gr


def theme() -> gr.themes.Base:
    """Gradio's plain theme with the fonts of the system."""
    return gr.themes.Base(
        primary_hue="blue",
        neutral_hue="slate",
        radius_size="sm",
        font=["system-ui", "sans-serif"],
        font_mono=["ui-monospace", "monospace"],
    ).set(
        body_text_color_subdued="*neutral_600",
        body_text_color_subdued_dark="*neutral_400",
        block_info_text_color="*neutral_600",
        block_info_text_color_dark="*neutral_400",
        input_placeholder_color="*neutral_500",
        input_placeholder_color_dark="*neutral_400",
        button_large_text_size="*text_md",
    )


CSS = """
.gradio-container { width: 100%; max-width: 1280px !important; margin: 0 auto !important; }
footer { display: none !important; }
#top { align-items: center; gap: 0 1rem; }
#top > * { flex: 0 1 auto; min-width: 0 !important; width: auto; }
#top #told { flex: 1 1 220px; }
#title h1 { font-size: 1.15rem; margin: 0; white-space: nowrap; }
p.figures, p.problem { margin: .15rem 0; font-size: .875rem; font-variant-numeric: tabular-nums; }
p.figures, .detail { color: var(--body-text-color-subdued); overflow-wrap: anywhere; }
p.problem { color: #b42318; border-left: 3px solid currentColor; padding-left: .6rem; overflow-wrap: anywhere; }
.dark p.problem { color: #ff9d92; }
.group { margin: 0 0 1.25rem; }
.group h3 { font-size: 1rem; margin: 0 0 .35rem; overflow-wrap: anywhere; }
.group .detail { margin: 0 0 .35rem; font-size: .8125rem; }
.state { font-size: .75rem; font-weight: 500; padding: .1rem .45rem; border-radius: 99px; margin-left: .3rem;
  color: #7a4b00; background: #fdefd0; }
div.unknown { opacity: .6; }
.state.ready { color: #0b5d33; background: #d9f2e3; }
.state.failed { color: #8f1d14; background: #fde1de; }
.dark .state { color: #f5cf8a; background: #453111; }
.dark .state.ready { color: #8fe0b3; background: #123c26; }
.dark .state.failed { color: #ffb3aa; background: #4a1a15; }
.tiles { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(160px, 46%), 1fr)); gap: .5rem; }
.tile { border: 1px solid var(--border-color-primary); border-radius: 6px; padding: .45rem .6rem .35rem;
  background: var(--block-background-fill); min-width: 0; }
.tile span { display: block; font-size: .75rem; color: var(--body-text-color-subdued); }
.tile b { display: block; font-size: .9rem; font-weight: 600; font-variant-numeric: tabular-nums; }
.tile svg { display: block; width: 100%; height: 28px; margin-top: .2rem;
  border-bottom: 1px solid var(--border-color-primary); }
.tile path { fill: none; stroke: var(--color-accent); stroke-width: 1.5; vector-effect: non-scaling-stroke; }
@media (max-width: 480px) {
  #chat-left, #chat-right { height: 300px !important; }
  .tiles { grid-template-columns: 1fr 1fr; }
  .tile b { font-size: .8125rem; }
}
button.go { max-width: 180px; }
#told .html-container, .told .html-container, #live .html-container { padding: 0 !important; }
.told:not(:has(p)):not(:has(table)) { display: none; }
.matrix { overflow-x: auto; }
.matrix table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
.matrix caption { text-align: left; font-size: .8125rem;
  color: var(--body-text-color-subdued); padding-bottom: .4rem; }
.matrix table, .matrix tbody, .matrix tr, .matrix thead, .matrix th, .matrix thead td { border: 0 !important; }
.matrix th { font-weight: 400; text-align: left; padding: .3rem .6rem .3rem 0; max-width: min(24rem, 45vw);
  overflow-wrap: anywhere; }
.matrix thead th { text-align: center; padding: .2rem; }
.matrix td { min-width: 3.2rem; text-align: center; padding: .35rem; border: 1px solid var(--border-color-primary); }
.matrix tbody td { background: color-mix(in srgb, var(--color-accent) calc(var(--share) * 55%), transparent); }
"""
