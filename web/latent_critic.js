// Shows a node's report under its widgets, and a button on Keep Best of Session. Optional: without this file every node
// works, and the scores are on the thumbnails and in the `report` output.
import { app } from "../../scripts/app.js";
import { ComfyWidgets } from "../../scripts/widgets.js";

const NAME = "latent_critic_report";

function reportWidget(node) {
  const found = node.widgets?.find((widget) => widget.name === NAME);
  if (found) return found;
  const widget = ComfyWidgets.STRING(node, NAME, ["STRING", { multiline: true }], app)?.widget;
  if (!widget) return undefined;
  // Neither saved with the workflow nor sent with the prompt.
  widget.serialize = false;
  widget.options = { ...widget.options, serialize: false, read_only: true };
  const element = widget.element ?? widget.inputEl;
  if (element) {
    element.readOnly = true;
    element.style.fontFamily = "monospace";
    element.style.whiteSpace = "pre";
  }
  return widget;
}

function show(node, text) {
  try {
    const widget = reportWidget(node);
    if (!widget) return;
    widget.value = text;
    const [width, height] = node.computeSize?.() ?? node.size;
    node.setSize?.([Math.max(node.size[0], width), Math.max(node.size[1], height)]);
    node.setDirtyCanvas?.(true, true);
  } catch (error) {
    console.warn("Latent Critic: the report cannot be shown in this frontend.", error);
  }
}

// What Reroll Until Good showed lies in `reroll`, which ComfyUI caches: so that a cached run shows it again. The first
// message of a run that samples is still empty.
function unfold(output) {
  const kept = output?.reroll?.at(-1);
  if (!kept?.images || output.images) return;
  output.images = kept.images;
  output.text = kept.text;
}

// "night" → "night 2" → "night 3"
function nextName(name) {
  const [, stem, number] = /^(.*?)(?: (\d+))?$/.exec(name.trim());
  return `${stem} ${Number(number ?? 1) + 1}`;
}

// A button that gives the session its next name: the old session's folder stays as it is.
function addSessionButton(node) {
  try {
    const session = node.widgets?.find((widget) => widget.name === "session");
    if (!session) return;
    const button = node.addWidget("button", "start a new session", null, () => {
      session.value = nextName(String(session.value));
      session.callback?.(session.value);
      node.setDirtyCanvas?.(true, true);
    });
    button.serialize = false;
    button.options = { ...button.options, serialize: false };
  } catch (error) {
    console.warn("Latent Critic: the button for a new session cannot be shown in this frontend.", error);
  }
}

app.registerExtension({
  name: "LatentCritic.Report",
  nodeCreated(node) {
    if (node.comfyClass === "LatentCriticKeepBest") addSessionButton(node);
  },
  beforeRegisterNodeDef(nodeType, nodeData) {
    if (!nodeData?.name?.startsWith("LatentCritic")) return;
    const before = nodeType.prototype.onExecuted;
    nodeType.prototype.onExecuted = function (output, ...rest) {
      unfold(output);
      const result = before?.call(this, output, ...rest);
      const text = output?.text?.[0];
      if (typeof text === "string" && text) show(this, text);
      return result;
    };
  },
});
