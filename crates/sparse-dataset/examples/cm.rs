//! x
use std::path::Path;
fn main(){ let a:Vec<String>=std::env::args().collect();
 let mut spec=sparse_dataset::CompressSpec::default();
 match a.get(4).map(|s|s.as_str()) { Some("fast")=>spec.effort=sparse_dataset::Effort::Fast, Some("smallest")=>spec.effort=sparse_dataset::Effort::Smallest,_=>{} }
 let s=std::time::Instant::now();
 let out=Path::new(&a[3]); std::fs::create_dir_all(out).unwrap();
 let r=match sparse_dataset::compress(Path::new(&a[1]),Path::new(&a[2]),out,&spec,&()) {Ok(r)=>r,Err(e)=>{println!("{e} {:?}",e.hint());std::process::exit(2)}};
 let c=s.elapsed();
 let s=std::time::Instant::now();
 let o=out.join("back");
 let v=sparse_dataset::reconstruct(Path::new(&a[1]),out,&o,&());
 println!("{} -> {} {:?} | {:?} {:?}", r.derivative_bytes, r.delta_bytes, c, s.elapsed(), v.map(|v|v.byte_exact).map_err(|e|e.to_string()));
 if a.len()>5 { println!("{:#?}", r.splits); }
}
