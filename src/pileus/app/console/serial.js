import { Terminal } from './xterm/lib/xterm.mjs';
import { FitAddon } from './addon-fit/lib/addon-fit.mjs';

const status = document.getElementById('status');
const terminal = new Terminal({ scrollback: 10000 });
const fit = new FitAddon();
terminal.loadAddon(fit);
terminal.open(document.getElementById('screen'));
fit.fit();
addEventListener('resize', () => fit.fit());

// The page and its WebSocket have one address.
const address = new URL(location.href);
address.protocol = location.protocol === 'https:' ? 'wss:' : 'ws:';
address.hash = '';
const line = new WebSocket(address, ['binary']);
line.binaryType = 'arraybuffer';

const encoder = new TextEncoder();
let connected = false;
line.onopen = () => {
    connected = true;
    status.textContent = 'Connected';
    terminal.focus();
};
line.onmessage = (event) => terminal.write(new Uint8Array(event.data));
line.onclose = () => {
    status.textContent = connected
        ? 'The console was closed. Ask for a new one to go on.'
        : 'There is no connection: the server does not run, or the address is good no longer. Ask for a new one.';
};
terminal.onData((text) => {
    if (line.readyState === WebSocket.OPEN) {
        line.send(encoder.encode(text));
    }
});
terminal.onBinary((text) => {
    if (line.readyState === WebSocket.OPEN) {
        line.send(Uint8Array.from(text, (character) => character.charCodeAt(0)));
    }
});
