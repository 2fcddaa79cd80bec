import RFB from './novnc/core/rfb.js';

const status = document.getElementById('status');
const reset = document.getElementById('reset');
const screen = document.getElementById('screen');

// `path` names the WebSocket, as noVNC's own pages have it; another host than this one gets no token.
const given = new URLSearchParams(location.search).get('path') || 'console/websockify';
const address = new URL(given.replace(/^\/+/, ''), location.origin + '/');
if (address.origin !== location.origin) {
    throw new Error('the console is not here');
}
address.protocol = location.protocol === 'https:' ? 'wss:' : 'ws:';

const rfb = new RFB(screen, address.href, { wsProtocols: ['binary'], shared: true });
rfb.scaleViewport = true;

rfb.addEventListener('connect', () => {
    status.textContent = 'Connected';
    reset.disabled = false;
    rfb.focus();
});
rfb.addEventListener('desktopname', (event) => {
    status.textContent = event.detail.name;
});
rfb.addEventListener('disconnect', (event) => {
    reset.disabled = true;
    status.textContent = event.detail.clean
        ? 'The console was closed. Ask for a new one to go on.'
        : 'There is no connection: the server does not run, or the address is good no longer. Ask for a new one.';
});
rfb.addEventListener('clipboard', (event) => {
    if (navigator.clipboard) {
        navigator.clipboard.writeText(event.detail.text).catch(() => {});
    }
});
reset.addEventListener('click', () => {
    rfb.sendCtrlAltDel();
    rfb.focus();
});
document.getElementById('full').addEventListener('click', () => {
    document.documentElement.requestFullscreen().then(() => rfb.focus());
});
