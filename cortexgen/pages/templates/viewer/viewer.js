
"use strict";
(() => {
  const AXIAL = 0, MULTIPLANAR = 3, RENDER = 4, TURN = 10, FADING = 1; // views of NiiVue; degrees a key; a kind of colours
  const AXES = [2, 1, 0, 2]; // of the world, by view: which one its slices lie along

  class Pane {
    constructor(element, viewer) {
      this.viewer = viewer;
      this.find = (name) => element.querySelector(name);
      this.brain = this.find("[name=brain]");
      this.layer = this.find("[name=layer]");
      this.canvas = this.find("canvas");
      this.canvas.addEventListener("keydown", (event) => viewer.key(event), true);
      this.canvas.addEventListener("keyup", (event) => event.stopImmediatePropagation(), true);
      this.nv = new niivue.Niivue({
        backColor: [0, 0, 0, 1], crosshairColor: [1, 0.83, 0.29, 0.7], crosshairWidth: 1, crosshairWidthUnit: "mm", fontColor: [0.9, 0.9, 0.9, 1], show3Dcrosshair: true,
        dragAndDropEnabled: false, scrollRequiresFocus: true, logLevel: "error", loadingText: "", textHeight: 0.04,
        multiplanarShowRender: 1, multiplanarLayout: 2, isRadiologicalConvention: false, sagittalNoseLeft: false,
      });
      this.shown = null;
    }

    async attach() {
      await this.nv.attachToCanvas(this.canvas, false);
      for (const name of ["shrunk", "grown"]) this.nv.addColormap(name, this.viewer.data.growth[name]);
      this.nv.onLocationChange = (place) => this.viewer.moved(this, place);
      this.nv.onAzimuthElevationChange = (azimuth, elevation) => this.viewer.turned(this, azimuth, elevation);
    }

    chosen() {
      return this.viewer.data.brains[this.brain.value === "" ? this.viewer.panes[0].brain.value : this.brain.value];
    }

    async show() {
      const brain = this.chosen(), { data } = this.viewer, layer = this.layer.value;
      this.shown = brain;
      const wanted = [{ base64: brain.image, name: "image.nii.gz", colormap: "gray", cal_min: 0, cal_max: data.top }];
      if (brain[layer] !== undefined) {
        wanted.push({ base64: brain[layer], name: layer + ".nii.gz", opacity: this.viewer.opacity() });
        const range = { cal_min: 1, cal_max: 1.001, cal_minNeg: -1.001, cal_maxNeg: -1 };
        if (layer === "growth") Object.assign(wanted[1], { colormap: "grown", colormapNegative: "shrunk", ...range });
      }
      const images = [];
      for (const one of wanted) images.push(await niivue.NVImage.loadFromBase64(one));
      if (this.shown !== brain || this.layer.value !== layer) return; // chosen otherwise meanwhile
      if (layer === "labels" && images[1]) images[1].setColormapLabel(data.classes);
      if (layer === "growth" && images[1]) images[1].colormapType = FADING;
      while (this.nv.volumes.length) this.nv.removeVolumeByIndex(this.nv.volumes.length - 1);
      for (const image of images) this.nv.addVolume(image);
      const missing = layer && images.length === 1 ? " (has no such layer)" : "";
      this.find(".what").textContent = brain.name + missing + (brain.caption ? ": " + brain.caption : "");
      this.viewer.still(() => this.place());
    }

    place() { // where the crosshair is
      if (!this.nv.volumes.length) return;
      this.nv.scene.crosshairPos = this.nv.mm2frac(this.viewer.at);
      this.nv.drawScene();
      this.nv.createOnLocationChange();
    }

    say(place) {
      const words = place.values.map((found, k) => {
        if (!k) return found.value.toFixed(2);
        if (this.layer.value === "growth") return "log |J| " + (found.value * Math.abs(found.value) * this.viewer.data.growth.largest).toFixed(2);
        return this.viewer.data.classes.labels[Math.round(found.value)] || "no label";
      });
      const where = ["x", "y", "z"].map((name, k) => name + " " + Math.round(place.mm[k])).join(", ");
      this.find(".where").textContent = where + " mm: " + words.join(", ");
    }
  }

  class Viewer {
    constructor(root) {
      this.find = (name) => root.querySelector(name);
      this.data = JSON.parse(this.find("script[type='application/json']").textContent);
      this.at = this.data.ends.map(([low, high]) => Math.round((low + high) / 2));
      this.view = this.find("[name=view]");
      this.slice = this.find("[name=slice]");
      this.panes = [...root.querySelectorAll(".pane")].map((element) => new Pane(element, this));
      this.busy = false;
    }

    opacity() { return this.find("[name=opacity]").value / 100; }

    async start() {
      const [left, right] = this.panes;
      if (right.brain.options[0].value !== "") {
        right.brain.value = right.brain.querySelector("optgroup:nth-of-type(2) option").value;
      } else if (right.layer.options.length > 1) {
        right.layer.selectedIndex = 1;
      }
      for (const pane of this.panes) {
        await pane.attach();
        pane.brain.addEventListener("change", () => this.panes.forEach((p) => p.chosen() !== p.shown && p.show()));
        pane.layer.addEventListener("change", () => pane.show());
      }
      this.view.addEventListener("change", () => this.look());
      this.slice.addEventListener("input", () => this.move(this.axis(), Number(this.slice.value)));
      this.find("[name=opacity]").addEventListener("input", () => {
        for (const { nv } of this.panes) if (nv.volumes.length > 1) nv.setOpacity(1, this.opacity());
      });
      await Promise.all([left.show(), right.show()]);
      this.look();
    }

    still(action) { // without an echo from picture to picture
      this.busy = true;
      action();
      this.busy = false;
    }

    axis() { return AXES[this.view.value] ?? 2; }

    look() {
      for (const { nv } of this.panes) nv.setSliceType(Number(this.view.value));
      this.slice.disabled = Number(this.view.value) === RENDER;
      [this.slice.min, this.slice.max] = this.data.ends[this.axis()];
      this.mark();
    }

    mark() {
      const axis = this.axis();
      this.slice.value = this.at[axis];
      this.slice.setAttribute("aria-valuetext", "xyz"[axis] + " = " + Math.round(this.at[axis]) + " mm");
    }

    move(axis, place) {
      const [low, high] = this.data.ends[axis];
      this.at[axis] = Math.min(high, Math.max(low, place));
      this.still(() => this.panes.forEach((pane) => pane.place()));
      this.mark();
    }

    moved(pane, place) { // by hand in one picture; the other follows
      pane.say(place);
      if (this.busy) return;
      this.at = [...place.mm].slice(0, 3);
      this.still(() => this.panes.forEach((other) => other !== pane && other.place()));
      this.mark();
    }

    turned(pane, azimuth, elevation) {
      if (this.busy) return;
      this.still(() => this.panes.forEach((other) => other !== pane && other.nv.setRenderAzimuthElevation(azimuth, elevation)));
    }

    key(event) {
      const [across, up] = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }[event.key] || [];
      if (event.key !== "Tab") event.stopImmediatePropagation();
      if (across === undefined) return;
      event.preventDefault();
      if (Number(this.view.value) !== RENDER) return this.move(this.axis(), this.at[this.axis()] + 2 * (across + up));
      const { renderAzimuth, renderElevation } = this.panes[0].nv.scene;
      for (const { nv } of this.panes) nv.setRenderAzimuthElevation(renderAzimuth + TURN * across, renderElevation + TURN * up);
    }
  }

  for (const root of document.querySelectorAll(".viewer")) {
    const [live, still] = [root.querySelector(".live"), root.querySelector(".still")];
    const plain = (error) => {
      if (error) console.error(error);
      live.hidden = true;
      still.hidden = false;
      still.querySelector(".why").hidden = false;
    };
    if (!document.createElement("canvas").getContext("webgl2")) {
      plain();
      continue;
    }
    live.hidden = false;
    still.hidden = true;
    new Viewer(root).start().then(() => { root.dataset.ready = "yes"; }, plain);
  }
})();
