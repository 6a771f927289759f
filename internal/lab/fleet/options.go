package fleet

// Options say what the site is made of.
type Options struct {
	Binary string // bin/everboot
	VDisk  string // folder of the vDisk (image.DiskFile and its neighbours) that every streamer gets a replica of
	Consul bool   // the registry is Consul, on hosts c1 to c3; else embedded
	// Damaged names a streamer whose replica gets one byte changed.
	Damaged string
	// Media says that targets boot from media: DHCP is the router's, which gives addresses and no boot options, and the appliances
	// run neither DHCP nor TFTP.
	Media bool
	// HTTP are more lines of the appliances' [http].
	HTTP string
	// Collection is that of all devices; it stands in no file.
	Collection string
	// Router are more arguments of the router's DHCP server.
	Router []string
	// Loader says that targets start the boot loader of their vDisk, which reads the kernel block by block; else they load it over HTTP.
	Loader bool
	// Floating says that streamers serve at addresses that float.
	Floating bool
	// Machines says that the appliances are whole machines, which somebody else starts: they have no host here, and are asked over their API.
	Machines bool
}
