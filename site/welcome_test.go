package site

import (
	"reflect"
	"testing"
)

func TestWelcome(t *testing.T) {
	stranger, medium := MAC{0x52, 0x54, 0, 9, 9, 9}, ""
	for _, tt := range []struct {
		name   string
		change func(v *View)
		mac    MAC
		want   string // the collection; empty: it is not taken in
	}{
		{"no collection says so", func(v *View) { v.Collections["a"] = Collection{Name: "a"} }, stranger, ""},
		{"one does", func(v *View) { v.Collections["lab"] = Collection{Name: "lab", AutoAdd: true} }, stranger, "lab"},
		{"two do: the first by name", func(v *View) {
			v.Collections["b"] = Collection{Name: "b", AutoAdd: true}
			v.Collections["a"] = Collection{Name: "a", AutoAdd: true}
		}, stranger, "a"},
		{"two do, and its medium is of the second", func(v *View) {
			v.Collections["b"] = Collection{Name: "b", AutoAdd: true}
			v.Collections["a"] = Collection{Name: "a", AutoAdd: true}
			medium = "b"
		}, stranger, "b"},
		{"its medium is of one that takes nobody in", func(v *View) {
			v.Collections["b"] = Collection{Name: "b"}
			v.Collections["a"] = Collection{Name: "a", AutoAdd: true}
			medium = "b"
		}, stranger, "a"},
		{"its medium is of one that is gone, and nobody takes it", func(*View) { medium = "b" }, stranger, ""},
		{"it is known", func(v *View) {
			v.Collections["lab"] = Collection{Name: "lab", AutoAdd: true}
			v.Devices[stranger] = Device{MAC: stranger}
		}, stranger, ""},
		{"no machine's address", func(v *View) { v.Collections["lab"] = Collection{Name: "lab", AutoAdd: true} }, MAC{0x01}, ""},
		{"too many that nobody has named", func(v *View) {
			v.Collections["lab"] = Collection{Name: "lab", AutoAdd: true}
			for i := range MaxWelcomed {
				mac := MAC{2, 0, 0, 0, byte(i >> 8), byte(i)}
				v.Devices[mac] = Device{MAC: mac, Collection: "lab"}
			}
		}, stranger, ""},
		{"many that have names", func(v *View) {
			v.Collections["lab"] = Collection{Name: "lab", AutoAdd: true}
			for i := range MaxWelcomed {
				mac := MAC{2, 0, 0, 0, byte(i >> 8), byte(i)}
				v.Devices[mac] = Device{MAC: mac, Collection: "lab", Name: "x"}
			}
		}, stranger, "lab"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			v := Empty("berlin", "embedded")
			medium = ""
			tt.change(v)
			d, ok := Welcome(v, tt.mac, medium)
			if ok != (tt.want != "") || ok && !reflect.DeepEqual(d, Device{MAC: tt.mac, Collection: tt.want}) {
				t.Errorf("got %+v, %v", d, ok)
			}
		})
	}
}
