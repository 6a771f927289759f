package tftp

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"everboot/internal/ports"
	"everboot/site"
)

// Check tries, before a start, whether a server with cfg could listen. It changes nothing. Each error says what to do.
func Check(cfg Config) []error {
	addr, err := cfg.address()
	if err != nil {
		return []error{err}
	}
	socket, err := openSocket(addr)
	if err != nil {
		return []error{err}
	}
	socket.close() // only tried
	return nil
}

// CheckHTTP tries, before a start, whether an HTTP server with cfg could listen. It changes nothing.
func CheckHTTP(cfg HTTPConfig) []error {
	addresses, err := cfg.addresses()
	if err != nil {
		return []error{err}
	}
	var errs []error
	if cfg.Certificate != "" {
		if _, err := newCertificate(cfg.Certificate, cfg.Key, nil); err != nil {
			errs = append(errs, err)
		}
	}
	for _, addr := range addresses {
		list, err := listenTCP(addr)
		if err != nil {
			errs = append(errs, err)
		}
		for _, l := range list {
			_ = l.Close() // only tried
		}
	}
	return errs
}

// CheckFiles says what is missing for boot files to be served.
func CheckFiles(cfg FilesConfig) []error {
	if err := cfg.Validate(); err != nil {
		return []error{err}
	}
	if cfg.Root != "" {
		switch info, err := os.Stat(cfg.Root); {
		case errors.Is(err, fs.ErrNotExist):
			return []error{fmt.Errorf("boot files: directory %s does not exist: make it, or change root", cfg.Root)}
		case err != nil:
			return []error{fmt.Errorf("boot files: %w", err)}
		case !info.IsDir():
			return []error{fmt.Errorf("boot files: %s is not a directory: change root", cfg.Root)}
		}
	}
	files, err := NewFiles(cfg, func() *site.View { return site.Empty("", "") })
	if err != nil {
		return []error{err}
	}
	defer files.Close()
	var errs []error
	for _, name := range []string{site.FileBIOS, site.FileX64} {
		file, err := files.Open(name)
		if err != nil {
			where := filepath.Join(files.cfg.IPXE, name)
			errs = append(errs, fmt.Errorf("boot files: there is no %s: install Debian's package ipxe, or put it into root (%w)", where, err))
			continue
		}
		_ = file.Close() // read only
	}
	return errs
}

// portHint ends the error of a bind with what to do.
func portHint(network string, port int, err error) string {
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return "; " + ports.Owner(network, uint16(port)) + " has the port: stop it, or listen elsewhere"
	case errors.Is(err, syscall.EACCES):
		return "; run as root or with the capability CAP_NET_BIND_SERVICE"
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return "; no interface of this host has that address"
	}
	return ""
}
