// Listens in on all that goes to the loudspeakers, and notes when something is to be heard.
(() => {
  const AUDIBLE = 0.02;
  const taps = new WeakMap();
  const connect = AudioNode.prototype.connect;
  window.heard = { clicked: 0, first: null, peak: 0, seconds: 0 };
  window.violations = [];

  addEventListener("click", () => Object.assign(window.heard, { clicked: performance.now(), first: null }), true);
  document.addEventListener("securitypolicyviolation", (event) => {
    window.violations.push(`${event.violatedDirective} ${event.blockedURI}`);
  });

  function tapOf(context) {
    if (!taps.has(context)) {
      const tap = context.createScriptProcessor(1024, 1, 1);
      tap.onaudioprocess = ({ inputBuffer }) => {
        const samples = inputBuffer.getChannelData(0);
        const peak = samples.reduce((loudest, sample) => Math.max(loudest, Math.abs(sample)), 0);
        window.heard.peak = Math.max(window.heard.peak, peak);
        if (peak < AUDIBLE) return;
        window.heard.first ??= performance.now();
        window.heard.seconds += inputBuffer.duration;
      };
      connect.call(tap, context.destination);
      taps.set(context, tap);
    }
    return taps.get(context);
  }

  AudioNode.prototype.connect = function (target, ...rest) {
    if (target instanceof AudioDestinationNode) connect.call(this, tapOf(this.context));
    return connect.call(this, target, ...rest);
  };
})();
