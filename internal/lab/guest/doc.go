// Package guest is the program that runs inside a booted target while tests take streamers and appliances away: it reads
// its vDisk without a cache, checks every byte, and says on the serial console how long the longest read took.
//
// The blocks that it reads are a pure function of their index (FillBlock), so that no list of digests is needed. The lab
// writes them with WriteArea when it makes the vDisk, and reads the guest's lines with Parse.
package guest
