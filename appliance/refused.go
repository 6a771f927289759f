package appliance

import (
	"net/netip"

	"everboot/appliance/refusals"
)

// dropRefusals keeps the kernel from refusing logins at the floating addresses when this node's processes are gone and the addresses are not yet. It is a help
// that a host may lack.
func (w *worker) dropRefusals() {
	addresses := w.cfg.VIP.floating()
	if len(addresses) == 0 {
		return
	}
	if w.director == nil { // an earlier start may have had one, and was killed
		_ = refusals.Restore()
		return
	}
	if err := refusals.Drop(addresses, port(w.cfg.Director.Listen)); err != nil {
		w.log.Warn("if all processes of this appliance are killed at once, its targets wait 1 s longer", "error", err)
	}
}

// restoreRefusals takes that back. There is nothing to tell where nothing could be done.
func restoreRefusals(addresses []netip.Addr) {
	if len(addresses) > 0 {
		_ = refusals.Restore()
	}
}
